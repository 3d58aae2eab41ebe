"""Runs in the pytest process of a session: collects its tests alone, and sends their reports."""
