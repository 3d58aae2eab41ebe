"""How does a test come to run under each start method?"""
