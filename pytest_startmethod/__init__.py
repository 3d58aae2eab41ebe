"""Run tests under every multiprocessing start method: fork, spawn and forkserver."""
