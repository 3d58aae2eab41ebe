"""Knows the processes that tests start: who started and owns them, and how they end."""
