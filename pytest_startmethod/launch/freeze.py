"""Keeps the garbage collector of each child from touching what its forkserver has imported.

A forkserver imports this last. What the collector touches is copied for that child alone.
"""

import gc

from pytest_startmethod.launch import listener  # noqa: F401 (for the children)

gc.freeze()
