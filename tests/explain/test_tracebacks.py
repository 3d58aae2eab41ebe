r"""What is read in captured stderr, whose lines end with \r\n on Windows: by plain calls."""

from __future__ import annotations

import pytest

from pytest_startmethod.explain import hints, tracebacks

PRINTED = """\
Process SpawnProcess-1:
Traceback (most recent call last):
  File "lib/multiprocessing/process.py", line 314, in _bootstrap
    self.run()
  File "helper.py", line 3, in raises
    1 / 0
ZeroDivisionError: division by zero
Process SpawnProcess-2:
Traceback (most recent call last):
  File "<string>", line 1, in <module>
  File "lib/multiprocessing/spawn.py", line 122, in spawn_main
    exitcode = _main(fd, parent_sentinel)
  File "lib/multiprocessing/spawn.py", line 132, in _main
    self = reduction.pickle.load(from_parent)
ModuleNotFoundError: No module named 'late'
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_last_line_of_the_last_traceback_is_one_line(end: str) -> None:
    printed = PRINTED.replace("\n", end)
    assert tracebacks.last_line(printed) == "ModuleNotFoundError: No module named 'late'"
    assert tracebacks.last_line(f"no traceback{end}") == ""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_children_printed_gives_a_hint(end: str) -> None:
    hint = hints.find("", PRINTED.replace("\n", end))
    assert hint.startswith("a child finds its target by importing the module it is in")
