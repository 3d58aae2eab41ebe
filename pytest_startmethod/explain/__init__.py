"""Words warnings and failures: exit codes, stacks, tracebacks and hints."""
