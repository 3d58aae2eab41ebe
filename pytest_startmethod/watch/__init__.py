"""What do a test's processes do, and what is wrong?"""
