"""Selects the start methods that each test runs under."""
