"""How do child processes start fast and clean?"""
