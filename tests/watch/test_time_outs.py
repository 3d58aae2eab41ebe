"""A time-out that is raised while the plugin works reaches the test."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends SIGALRM, and reads limits")

# A profile function raises the signal where a function of the plugin's begins: so it comes at the
# same place each time, between any two of the plugin's steps.
SUITE = """
    import _signal
    import multiprocessing
    import os
    import resource
    import signal
    import sys

    import pytest

    REAL = _signal.signal
    CONTEXTS = [multiprocessing.get_context(name) for name in ("fork", "spawn")]


    class Timeout(Exception):
        pass


    class Exit(BaseException):
        pass


    def starts(context):
        process = context.Process(target=int)
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()


    def state():
        return (
            _signal.signal is REAL,
            resource.getrlimit(resource.RLIMIT_RTTIME),
            signal.getsignal(signal.SIGURG),
            len(os.listdir("/proc/self/fd")),
        )


    @pytest.fixture(params=[Timeout, Exit])
    def timeout(request):
        def handler(*_):
            raise request.param

        before = signal.signal(signal.SIGALRM, handler)
        yield request.param
        signal.signal(signal.SIGALRM, before)


    @pytest.mark.parametrize("context", CONTEXTS)
    def test_it(context, timeout):
        starts(context)
        before, places = state(), []

        def note(frame, event, _):
            if event == "call" and "pytest_startmethod" in frame.f_code.co_filename:
                places.append(frame.f_code)

        process = context.Process(target=int)
        sys.setprofile(note)
        process.start()
        sys.setprofile(None)
        process.join()
        process.close()
        assert {"expect", "_begin", "_end", "note_start"} <= {code.co_name for code in places}
        for place in dict.fromkeys(places):

            def interrupt(frame, event, _):
                if event == "call" and frame.f_code is place:
                    sys.setprofile(None)
                    signal.raise_signal(signal.SIGALRM)

            process = context.Process(target=int)
            sys.setprofile(interrupt)
            try:
                with pytest.raises(timeout):
                    process.start()
            finally:
                sys.setprofile(None)
            if process.pid is not None:
                process.join()
            process.close()
            assert state() == before, place
            starts(context)
"""


def test_a_time_out_reaches_the_test_and_leaves_nothing_half_done(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(SUITE)
    result = run_watched("--start-method=fork")
    result.assert_outcomes(passed=4)
    assert result.ret == 0


class Handler:
    def __call__(self, *_: object) -> None:
        raise TimeoutError

    def method(self, *_: object) -> None:
        raise TimeoutError


def function(*_: object) -> None:
    raise TimeoutError


@pytest.mark.parametrize("handler", [function, Handler(), Handler().method])
def test_the_guard_knows_what_a_signals_handler_raised(handler: Callable[..., None]) -> None:
    guard = Guard()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(TimeoutError), guard:
            signal.raise_signal(signal.SIGALRM)
        assert not guard.error
        with guard:
            raise TimeoutError("the plugin's own")
        assert "the plugin's own" in guard.error
    finally:
        signal.signal(signal.SIGALRM, before)
