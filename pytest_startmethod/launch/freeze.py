"""Keeps the garbage collector of children from touching what their forkserver has imported.

A forkserver imports this module last. The system copies memory that a child's collector touches.
"""

import gc

from pytest_startmethod.launch import listener  # noqa: F401 (for the children)

gc.freeze()
