"""Runs tests under a start method: first in pytest's own process, then in sessions."""
