"""What is reported of the runs?"""
