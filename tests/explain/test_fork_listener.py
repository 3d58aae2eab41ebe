"""A fork listens from its first moment on, and its parent is as it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.explain import stacks
from pytest_startmethod.explain.fork_listener import ForkListener
from pytest_startmethod.launch.listener import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.needs("fork"),
    pytest.mark.skipif(not stacks.AVAILABLE, reason="children can't be asked here"),
    # A worker of xdist has a thread of its own.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that this process has got, by a handler of its own."""
    signals: list[int] = []
    before = signal.signal(stacks.SIGNAL, lambda number, _: signals.append(number))
    yield signals
    signal.signal(stacks.SIGNAL, before)


@pytest.fixture
def fork() -> Iterator[Callable[[], int]]:
    """Fork a child that waits, and return its pid."""
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    children: list[Any] = []

    def start() -> int:
        children.append(context.Process(target=ended.wait))
        children[-1].start()
        return int(children[-1].pid)

    yield start
    ended.set()
    for child in children:
        child.join()
        assert child.exitcode == 0


def listens(pid: int) -> bool:
    for file in list(Path(f"/proc/{pid}/fd").iterdir()):
        with suppress(FileNotFoundError):  # that of the list itself
            if str(file.readlink()).startswith(f"/memfd:{NAME}"):
                return True
    return False


def test_a_fork_listens_and_its_parent_is_as_it_was(
    heard: list[int], fork: Callable[[], int]
) -> None:
    listener = ForkListener(signal.getsignal(stacks.SIGNAL))  # type: ignore[arg-type]
    handler = signal.getsignal(stacks.SIGNAL)
    listener.begin()
    pid = fork()
    listener.end()
    assert listens(pid)
    assert signal.getsignal(stacks.SIGNAL) is handler
    assert not listens(os.getpid())
    os.kill(os.getpid(), stacks.SIGNAL)
    assert heard == [stacks.SIGNAL]


def test_a_fork_of_another_thread_meanwhile_listens_too(
    heard: list[int], fork: Callable[[], int]
) -> None:
    listener = ForkListener(signal.getsignal(stacks.SIGNAL))  # type: ignore[arg-type]
    handler = signal.getsignal(stacks.SIGNAL)
    begun, main_has_ended = threading.Event(), threading.Event()
    pids: list[int] = []

    def start() -> None:
        listener.begin()
        begun.set()
        main_has_ended.wait()
        pids.append(fork())
        listener.end()

    listener.begin()
    other = threading.Thread(target=start)
    other.start()
    begun.wait()
    listener.end()
    main_has_ended.set()
    other.join()
    assert listens(pids[0])
    assert not listens(os.getpid())
    assert signal.getsignal(stacks.SIGNAL) is handler
    os.kill(os.getpid(), stacks.SIGNAL)
    assert heard == [stacks.SIGNAL]


def test_no_fork_listens_while_the_signal_is_the_tests(
    heard: list[int], fork: Callable[[], int]
) -> None:
    listener = ForkListener(print)
    listener.begin()
    pid = fork()
    listener.end()
    assert not listens(pid)
    os.kill(os.getpid(), stacks.SIGNAL)
    assert heard == [stacks.SIGNAL]
