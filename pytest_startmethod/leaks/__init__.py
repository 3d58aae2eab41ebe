"""Stops what outlives its test: processes, what those started, and shared memory."""
