"""Keeps how pytest was started: copies made before a conftest or test can change the originals."""

from __future__ import annotations

import os
import sys

ENVIRONMENT = dict(os.environ)
SYS_PATH = tuple(sys.path)
ARGV = tuple(sys.argv)
EXECUTABLE = sys.executable
