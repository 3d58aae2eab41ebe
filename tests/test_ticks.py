"""What interrupts a wait: a timer of the kernel's, or a thread that is never there at a fork."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.watch import ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.posix("no stall is watched there, as no signal interrupts a wait")

METHODS = multiprocessing.get_all_start_methods()
LINUX = sys.platform == "linux"
KINDS = [ticks.ThreadTicks, *([ticks.TimerTicks] if LINUX else [])]


@pytest.fixture
def _handled() -> Iterator[None]:
    def handle(_signum: int, _frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGURG, handle)
    yield
    signal.signal(signal.SIGURG, before)


def threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()} if LINUX else set()


@pytest.mark.usefixtures("_handled")
@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_is_interrupted_until_the_end_and_no_thread_is_left(
    kind: type[ticks.ThreadTicks | ticks.TimerTicks],
) -> None:
    before = threads()
    made = kind(0.05, signal.SIGURG)

    def wait(first: Callable[[], None]) -> None:
        made.start()
        first()
        made.start()  # where it has begun, that is nothing
        threading.Event().wait(60)

    for first in (made.start, made.make_way):
        with pytest.raises(InterruptedError):
            wait(first)
        made.stop()
        made.stop()
        assert threads() == before


@pytest.mark.parametrize("kind", KINDS)
def test_no_thread_is_there_when_the_process_is_to_fork(
    kind: type[ticks.ThreadTicks | ticks.TimerTicks],
) -> None:
    before = threads()
    made = kind(60, signal.SIGURG)  # ignored by default
    made.start()
    made.make_way()
    assert threads() == before
    made.stop()


def test_a_timer_it_is_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ticks.every(1, signal.SIGURG), KINDS[-1])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(ticks.every(1, signal.SIGURG), ticks.ThreadTicks)


def test_a_test_that_waits_for_the_dead_fails_by_the_ticks_of_a_thread(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        from pytest_startmethod.watch import ticks

        ticks.every = ticks.ThreadTicks
    """)
    pytester.makepyfile(
        helper="""

            def exits(queue):
                os._exit(3)
        """,
        test_it="""
            import helper

            def test_it(mp_context):
                queue = mp_context.Queue()
                for _ in range(3):  # where the thread makes way for the next
                    process = mp_context.Process(target=helper.exits, args=(queue,))
                    process.start()
                queue.get()
        """,
    )
    stalls = ("-o", "start_method_stall_timeout=0.2", "-W", "error::DeprecationWarning")
    result = run_watched(*stalls)
    result.assert_outcomes(failed=len(METHODS))
    failures = [line for line in result.outlines if line.startswith("E ")]
    assert len(failures) == len(METHODS)
    assert all("blocked for 0.2 s in a wait" in line for line in failures)
