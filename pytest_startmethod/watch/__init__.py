"""Watches each test that runs under a start method: its processes, and its end."""
