"""Finds the tracebacks that child processes printed, in captured stderr."""

from __future__ import annotations

import re

LAST_LINE = re.compile(r"^Traceback \(most.*\n(?:[ \t|+].*\n|\n)*(\S.*)$", re.MULTILINE)


def normalize(stderr: str) -> str:
    r"""Return captured stderr with \n at the end of each line: on Windows children write \r\n."""
    return stderr.replace("\r\n", "\n")


def last_line(stderr: str) -> str:
    """Return the last line of the last traceback, or ""."""
    found = LAST_LINE.findall(normalize(stderr))
    return str(found[-1]) if found else ""
