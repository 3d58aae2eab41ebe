"""Fixtures and hooks that several tests share."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "needs(*methods): the test is about these start methods, and skipped where one is missing.",
    )
    config.addinivalue_line(
        "markers", "posix(reason): the test is skipped on Windows, for this reason."
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        missing = [name for name in mark.args if name not in METHODS]
        if missing:
            pytest.skip(f"it is about {' and '.join(missing)}, which {sys.platform} lacks")
    posix = item.get_closest_marker("posix")
    if posix is not None and sys.platform == "win32":
        pytest.skip(*posix.args)


CHILD = '''
"""How was this process started? The operating system says it, not multiprocessing."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

IMPORTED_IN = os.getpid()


def method():
    parent = multiprocessing.parent_process().pid
    if os.getppid() != parent:
        return "forkserver"  # whose children are grandchildren
    return "fork" if IMPORTED_IN == parent else "spawn"  # a fork inherits its modules


def tell(connection):
    connection.send(method())


def by_process(context=multiprocessing):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(sender,))
    process.start()
    sender.close()  # so that a dead child is an EOFError here, not a test that hangs
    answer = receiver.recv()
    process.join()
    return answer


def by_pool(context=multiprocessing):
    with context.Pool(1) as pool:
        return pool.apply(method)


def by_executor(context=None):
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(method).result()
'''

ASK = """
def ask(context, target, *args):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(sender, *args))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    assert process.exitcode == 0
    return answer
"""

NOTES = """
from pathlib import Path

def note(text):
    with Path("notes.txt").open("a") as file:
        print(text, file=file)
"""


@pytest.fixture
def child_module(pytester: pytest.Pytester) -> None:
    """Let the tests of a run ``import child`` and start children that say how."""
    pytester.makepyfile(child=CHILD)


@pytest.fixture
def ask_module(pytester: pytest.Pytester) -> None:
    """Let the tests of a run ``from ask import ask``, to have the answer of a child."""
    pytester.makepyfile(ask=ASK)


@pytest.fixture
def helper(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    """Let the tests of a run ``import helper``: the `HELPER` of the module that asks for it."""
    pytester.makepyfile(helper=request.module.HELPER)


@pytest.fixture
def notes(pytester: pytest.Pytester) -> Callable[[], list[str]]:
    """Return what the tests of a run noted, by ``from notes import note``, and forget it."""
    pytester.makepyfile(notes=NOTES)

    def read() -> list[str]:
        path = pytester.path / "notes.txt"
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return text.splitlines()

    return read


@pytest.fixture
def runs() -> Callable[[pytest.RunResult], list[str]]:
    """Return what ``-v`` shows of each run: ``["test_x PASSED", "test_x[spawn] FAILED", ...]``."""

    def find(result: pytest.RunResult) -> list[str]:
        found = (
            re.search(r"(?:::(\S+) ([A-Z]{4,})\b)|(?:([A-Z]{4,}) \S+?::(\S+))", line)
            for line in result.outlines
            if "%]" in line
        )
        return [f"{m[1] or m[4]} {m[2] or m[3]}" for m in found if m]  # the latter with xdist

    return find


@pytest.fixture
def collected(pytester: pytest.Pytester) -> Callable[..., list[str]]:
    """Collect, and return the tests in their order: ``["test_x[fork]", ...]``."""

    def collect(*args: str) -> list[str]:
        result = pytester.runpytest_inprocess("--collect-only", "-q", *args)
        assert result.ret == pytest.ExitCode.OK
        return [line.partition("::")[2] for line in result.outlines if "::" in line]

    return collect


@pytest.fixture
def assert_usage_error() -> Callable[[pytest.RunResult, str], None]:
    """Check that a run ended with this error, all of it on one line, before any test."""

    def check(result: pytest.RunResult, message: str) -> None:
        assert [line for line in result.errlines if line] == [f"ERROR: {message}"]
        assert result.outlines == []
        assert result.ret == pytest.ExitCode.USAGE_ERROR

    return check


@pytest.fixture
def assert_one_line() -> Callable[..., None]:
    """Check that the error of a test or a file is this line, and nowhere a traceback of ours."""

    def check(result: pytest.RunResult, line: str, *, times: int = 1) -> None:
        assert result.outlines.count(line) == times
        assert result.errlines == []
        for unwanted in ("Traceback", "INTERNALERROR", "pytest_startmethod", "plugin.py"):
            assert unwanted not in result.stdout.str()

    return check


@pytest.fixture
def run_watched(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    left: Callable[[], dict[int, str]],
    assert_nothing_left: Callable[[], None],
) -> Callable[..., pytest.RunResult]:
    """Run a suite in a pytest with no other plugin, which ends by itself and leaves no process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def abort() -> None:
        for pid in left():  # pytest lets each print where its threads are
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)

    def run(*args: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        loaded = [arg for name in ("startmethod", *plugins) for arg in ("-p", name)]
        stall = ("-o", "start_method_stall_timeout=2")
        # Pools fork from a thread of their own, of which Python 3.12 and later warns; and it may be
        # that the garbage collector finds a lock while another one is made.
        warnings = ["-W", "ignore:This process:DeprecationWarning"]
        warnings += ["-W", "ignore:ResourceTracker called reentrantly:UserWarning"]
        hangs = threading.Timer(50, abort)
        hangs.start()
        try:
            result = pytester.runpytest_subprocess(*loaded, *stall, *warnings, *args, timeout=60)
        finally:
            has_ended = hangs.is_alive()
            hangs.cancel()
        assert has_ended
        assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
        assert_nothing_left()
        return result

    return run


@pytest.fixture
def run_impatient(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> Callable[..., pytest.RunResult]:
    """Run a suite as `run_watched` does, with a short grace for what leaks anyway."""
    code = "from pytest_startmethod.leaks import reaper\nreaper.GRACE = 0.2"
    pytester.makepyfile(impatient=code)

    def run(*args: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        return run_watched(*args, plugins=("impatient", *plugins))

    return run


@pytest.fixture
def left(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[int, str]]:
    """Return the processes that a run has started, directly or not, by pid: their commands."""
    monkeypatch.setenv("STARTED_IN", str(pytester.path))  # all of them inherit it
    mark = f"STARTED_IN={pytester.path}\0".encode()

    def find() -> dict[int, str]:
        found = {}
        for environ in Path("/proc").glob("[0-9]*/environ"):  # none but on Linux
            with suppress(OSError):  # it has ended just now, or is another user's
                if mark in environ.read_bytes():
                    command = environ.with_name("cmdline").read_text(encoding="utf-8")
                    found[int(environ.parent.name)] = command
        return found

    return find


@pytest.fixture
def assert_nothing_left(left: Callable[[], dict[int, str]]) -> Callable[[], None]:
    """Check that each process has ended that a run has started, directly or not."""

    def check() -> None:
        # The forkserver and the resource tracker end soon after pytest, and nobody can join them.
        deadline = time.monotonic() + 10
        while left() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left() == {}

    return check


@pytest.fixture
def assert_gone(pytester: pytest.Pytester) -> Callable[[int], None]:
    """Check that the children that noted their pids have ended, and were so many."""

    def check(number: int) -> None:
        pids = (pytester.path / "pids.txt").read_text(encoding="utf-8").split()
        assert len(pids) == number
        for pid in map(int, pids):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    return check
