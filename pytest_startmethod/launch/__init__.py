"""Makes child processes start fast, each with the environment and output of its test."""
