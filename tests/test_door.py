"""Code that runs while a test runs calls the system by functions that no mock can replace."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pytest_startmethod

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(pytest_startmethod.__file__).parent
MODULES = [
    file.relative_to(ROOT).as_posix()
    for wing in ("kernel", "processes", "stall", "leaks", "explain", "watch", "launch")
    for file in ROOT.glob(f"{wing}/*.py")
]

# What tests replace: all that these modules hold ...
REPLACED = (
    "gc",
    "io",
    "os",
    "pathlib",
    "select",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "time",
)
# ... and these of others; the built-in functions stand without a module.
FUNCTIONS = {
    "multiprocessing": {
        "active_children",
        "connection.wait",
        "current_process",
        "get_all_start_methods",
        "get_context",
        "get_start_method",
        "parent_process",
        "set_start_method",
    },
    "threading": {
        "Thread",
        "Timer",
        "active_count",
        "current_thread",
        "enumerate",
        "get_ident",
        "get_native_id",
        "main_thread",
    },
    "sys": {"_current_frames", "executable", "exit"},
    "": {"input", "open", "print"},
}

# Constants, which nobody replaces; and what runs before or after all tests, or in another process.
CONSTANTS = ("signal.SIG", "socket.AF_", "socket.SOCK_", "os.O_", "os.WNOHANG")
ALLOWED = {
    "kernel/syscalls.py": {
        # At import.
        "os.uname",
        # In the lookout's own process.
        "open",
        "os.kill",
        "os.pidfd_open",
        "os.readlink",
        "select.POLLIN",
        "select.poll",
        "sys.exit",
        "time.monotonic",
    },
    # Before the first test, and what a test sets.
    "leaks/child_config.py": {"tempfile.mkdtemp", "tempfile.tempdir"},
    "leaks/journal.py": {  # at import; it imports nothing of the plugin
        "os.close",
        "os.getpid",
        "os.open",
        "os.read",
        "os.stat",
        "os.unlink",
        "os.write",
    },
    "processes/exit_codes.py": {"signal.Signals"},
    # On Windows, where no mock of these is known to be used.
    "stall/windows_lookout.py": {"sys._current_frames"},
    "stall/wakeups.py": {"sys._current_frames", "threading.main_thread", "signal.Signals"},
    "kernel/waits.py": {"os.path.exists"},  # at import
    "stall/stall.py": {"threading.Thread"},  # as a type
    "processes/threads.py": {"threading.Thread"},  # as a type
    # In a child, before its target is imported.
    "launch/listener.py": {"os.close", "os.dup", "os.readlink"},
    "launch/freeze.py": {"gc.freeze"},  # in a forkserver
    "launch/imports.py": {"subprocess.run"},  # before the first test
}


@pytest.mark.parametrize("module", MODULES)
def test_what_runs_during_tests_calls_the_system_through_the_door(module: str) -> None:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    around = {name for name in _used(tree) if not name.startswith(CONSTANTS)}
    assert around - ALLOWED.get(module, set()) == set()
    assert ALLOWED.get(module, set()) <= {*around, *CONSTANTS}, "an exception that nobody needs"


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("import time\ntime.sleep(1)", {"time.sleep"}),
        ("from time import sleep as pause\npause(1)", {"time.sleep"}),
        ("import os.path\nos.path.exists('x')", {"os.path.exists"}),
        ("from pathlib import Path\nPath.cwd()", {"pathlib.Path.cwd"}),
        (
            "import multiprocessing as mp\nmp.get_start_method()",
            {"multiprocessing.get_start_method"},
        ),
        (
            "from multiprocessing import connection\nconnection.wait([])",
            {"multiprocessing.connection.wait"},
        ),
        (
            "from multiprocessing.connection import wait\nwait([])",
            {"multiprocessing.connection.wait"},
        ),
        ("import threading\nthreading.RLock()\nthreading.enumerate()", {"threading.enumerate"}),
        ("def f():\n    return open('x')", {"open"}),
        ("from pytest_startmethod.system import System\nSystem.open('x')", set()),
        ("def read(file):\n    return file.open()", set()),
    ],
)
def test_a_call_around_the_door_is_found(source: str, used: set[str]) -> None:
    assert set(_used(ast.parse(source))) == used


def _used(tree: ast.Module) -> Iterator[str]:
    """Return what code uses of what tests replace, by its full name."""
    names = dict(_imported(tree))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in inner:
            first, _, rest = _written(node).partition(".")
            known = names.get(first, first)
            if (first in names or not rest) and _is_replaced(name := f"{known}.{rest}".strip(".")):
                yield name


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Return what a module imports, by the names that it has there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                first = name.name.partition(".")[0]
                yield (name.asname, name.name) if name.asname else (first, first)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                yield name.asname or name.name, f"{node.module}.{name.name}"


def _written(node: ast.expr) -> str:
    """Return a dotted name as it is written; "" for what is no name."""
    if isinstance(node, ast.Name):
        return node.id
    if not isinstance(node, ast.Attribute):
        return ""
    before = _written(node.value)
    return f"{before}.{node.attr}" if before else ""


def _is_replaced(name: str) -> bool:
    module, _, function = name.partition(".")
    if not function:
        return name in FUNCTIONS[""]
    return module in REPLACED or function in FUNCTIONS.get(module, ())
