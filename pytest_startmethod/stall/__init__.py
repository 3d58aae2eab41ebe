"""Fails a test that waits for what no process or thread can give any more."""
