"""Which start methods does a test run under?"""
