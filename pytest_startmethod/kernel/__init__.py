"""Asks the kernel of Linux what processes and threads wait for, and who could end that."""
