"""Watches the processes of tests: proves start methods, ends hangs and leaks, explains failures."""
