"""After a run everything is as it was before, in this process and around it."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()

COMPARE = """
import concurrent.futures.process
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.queues
import multiprocessing.spawn
import multiprocessing.synchronize
import os
import signal
import sys
import threading
from multiprocessing import context, process, resource_tracker

import pytest

def functions():
    names = ("multiprocessing", "concurrent", "signal", "threading", "os")
    modules = [sys.modules[name] for name in sorted(sys.modules) if name.split(".")[0] in names]
    places = [*modules, *(v for m in modules for v in vars(m).values() if isinstance(v, type))]
    return {
        (place.__name__, name): value
        for place in places
        for name, value in tuple(vars(place).items())
        if callable(value) and getattr(place, "__module__", "") != "builtins"
    }

def files():
    links = {}
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            links[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # that of the folder itself
            pass
    return links

def children():
    path = f"/proc/self/task/{os.getpid()}/children"
    return open(path).read() if os.path.exists(path) else ""

def state():
    gc.collect()
    return {
        "default": multiprocessing.get_start_method(allow_none=True),
        "fallback": context._default_context._default_context,
        "path": list(sys.path),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "functions": functions(),
        "main": vars(sys.modules["__main__"]).get("__spec__"),
        "files": files(),
        "threads": threading.enumerate(),
        "children": multiprocessing.active_children(),
        "all children": children(),
    }
"""

SUITE = """
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor

import helper
import pytest


def start(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    return process

def test_clean(mp_context):
    start(mp_context, helper.nothing).join()
    with mp_context.Pool(2) as pool:
        pool.map(abs, [1])
    with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
        executor.submit(abs, 1).result()
    with mp_context.Manager() as manager:
        manager.list()

def test_crash(mp_context):
    start(mp_context, helper.exits)

def test_leak(mp_context):
    receiver, sender = mp_context.Pipe()
    start(mp_context, helper.receives, receiver)

def test_leaked_pool(mp_context):
    helper.KEPT.append(mp_context.Pool(1))

def test_leaked_executor(mp_context):
    executor = ProcessPoolExecutor(1, mp_context=mp_context)
    executor.submit(abs, 1).result()
    helper.KEPT.append(executor)

def test_stall(mp_context):
    receiver, sender = mp_context.Pipe()
    start(mp_context, helper.exits)
    receiver.recv()

def test_stalled_pool(mp_context):
    with mp_context.Pool(1) as pool:
        pool.apply(helper.exits)

def test_default(default_start_method):
    start(multiprocessing, helper.nothing).join()

def test_last():
    helper.KEPT.clear()
"""

HELPER = """
import os

KEPT = []

def nothing():
    pass

def exits():
    os._exit(1)

def receives(connection):
    connection.recv()
"""


@pytest.mark.parametrize("selected", [[], ["--start-method=all"], ["--start-method=spawn"]])
def test_what_was_there_before_pytest_main_is_there_again(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    assert_nothing_left: Callable[[], None],
    selected: list[str],
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others may leave something
    arguments = ["-p", "no:cacheprovider", "-W", "ignore", *selected]
    script = pytester.makepyfile(
        impatient="from pytest_startmethod.leaks import reaper\nreaper.GRACE = 0.2",
        helper=HELPER,
        test_it=SUITE,
        compare=COMPARE,
        script=f"""
            import multiprocessing
            import sys

            import pytest
            from compare import state
            from multiprocessing import resource_tracker

            if __name__ == "__main__":
                if sys.platform != "win32":
                    resource_tracker.ensure_running()  # stays on, and is no leak
                arguments = ["-p", "startmethod", "-p", "impatient"]
                arguments += ["-o", "start_method_stall_timeout=0.2"]
                # Once before it counts, for what is imported, compiled and cached by a first run.
                assert pytest.main(arguments + {arguments!r} + ["-k", "test_clean"]) == 0
                before = state()
                assert pytest.main(arguments + {arguments!r}) == pytest.ExitCode.TESTS_FAILED
                after = state()
                for name in before:
                    assert before[name] == after[name], (name, before[name], after[name])
                print("all is as it was")
        """,
    )
    result = pytester.runpython(script.with_name("script.py"))
    assert_nothing_left()
    assert result.ret == 0, result.stderr.str()
    passed = len(METHODS) * 6 + 1
    if selected == ["--start-method=spawn"]:
        passed = 7
    failed = "" if sys.platform == "win32" else "* failed, "
    result.stdout.fnmatch_lines([f"*{failed}{passed} passed*", "all is as it was"])


@pytest.mark.skipif("fork" not in METHODS, reason="only a fork inherits what is wrapped")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of the threads")
def test_the_child_of_a_fork_inherits_what_is_wrapped_and_does_nothing_with_it(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import os
        import signal
        import threading

        def grandchild():
            os._exit(1)

        def child(connection):
            threads = [threading.active_count(), len(os.listdir("/proc/self/task"))]
            process = multiprocessing.get_context("fork").Process(target=grandchild)
            process.start()
            threads += [threading.active_count(), len(os.listdir("/proc/self/task"))]
            os.kill(os.getpid(), signal.SIGURG)  # ignored, as it is by default
            process.join()
            connection.send((threads, process.exitcode))

        def test_it(mp_context):
            receiver, sender = mp_context.Pipe()
            process = mp_context.Process(target=child, args=[sender])
            process.start()
            assert receiver.recv() == ([1] * 4, 1)
            process.join()
            assert process.exitcode == 0
    """)
    run_watched("--start-method=fork").assert_outcomes(passed=1, warnings=0)


def test_the_signal_handler_of_a_test_is_put_back(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    if not hasattr(signal, "SIGURG"):
        pytest.skip("this platform has no SIGURG")
    pytester.makeconftest("""
        import signal

        def handler(*_):
            pass

        signal.signal(signal.SIGURG, handler)

        def pytest_sessionfinish():
            assert signal.getsignal(signal.SIGURG) is handler
            print("handler is there")
    """)
    pytester.makepyfile("""
        def test_it(mp_context):
            with mp_context.Pool(1) as pool:
                pool.apply(abs, [1])
    """)
    result = run_watched("-s")
    result.assert_outcomes(passed=len(METHODS), warnings=0)
    assert "handler is there" in result.stdout.str()
