"""Reports how each test ended under each start method."""
