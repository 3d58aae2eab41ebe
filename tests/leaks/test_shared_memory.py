"""Shared memory and named semaphores that nobody unlinks are named, and unlinked."""

from __future__ import annotations

import multiprocessing
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands down a mark"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()
WARNING = "pytest_startmethod.SharedMemoryLeakWarning"
SHM = Path("/dev/shm")

HELPER = """
import multiprocessing
import os
import signal
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import ShareableList, SharedMemory
from pathlib import Path

def note(name):
    with Path("names.txt").open("a") as file:
        file.write(f"{name}\\n")

def noted():
    return Path("names.txt").read_text().split()

def there(name):
    return Path("/dev/shm", name).exists()

def make():
    memory = SharedMemory(create=True, size=10)  # the line that makes it
    memory.buf[0] = 7
    note(memory.name)
    memory.close()
    return memory.name

def makes(connection):
    connection.send(make())
    connection.recv()

def unlinks(name):
    SharedMemory(name).unlink()

def child(context, target, *args):
    ours, its = context.Pipe()
    process = context.Process(target=target, args=[its, *args])
    process.start()
    return ours, process
"""


@pytest.fixture
def run_leaky(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult]
) -> Callable[..., pytest.RunResult]:
    """Run a suite as `run_impatient` does; no name that it noted is left."""
    (pytester.path / "names.txt").touch()

    def run(*args: str) -> pytest.RunResult:
        result = run_impatient("-s", *args)
        names = (pytester.path / "names.txt").read_text(encoding="utf-8").split()
        assert names
        assert [name for name in names if (SHM / name).exists()] == []
        assert "resource_tracker" not in result.stdout.str() + result.stderr.str()
        return result

    return run


def warnings_of(result: pytest.RunResult) -> list[str]:
    found = (line for line in result.outlines if "SharedMemoryLeakWarning: " in line)
    return [line.partition("SharedMemoryLeakWarning: ")[2] for line in found]


def test_what_a_test_makes_is_unlinked_before_the_next(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import helper
        import pytest
        from helper import ShareableList, SharedMemory

        KEPT = []

        @pytest.fixture(scope="module")
        def wide():
            KEPT.append(SharedMemory(create=True, size=1))
            helper.note(KEPT[-1].name)
            return KEPT[-1]

        def test_it(mp_context, wide):
            helper.make()

        def test_kept(mp_context):
            KEPT.append(SharedMemory("named-" + str(id(KEPT)), create=True, size=1))
            helper.note(KEPT[-1].name)

        def test_list(mp_context):
            helper.note(ShareableList([1, 2]).shm.name)

        def test_next(mp_context, wide):
            assert helper.there(wide.name)
            assert len(helper.noted()) == 4
            assert list(filter(helper.there, helper.noted())) == [wide.name]

        def test_unlinked(mp_context):
            memory = SharedMemory(create=True, size=1)
            memory.close()
            memory.unlink()
        """
    )
    result = run_leaky("--start-method=spawn")
    result.assert_outcomes(passed=5, warnings=4)
    texts = warnings_of(result)
    of_test = "still there at the end of the test, and then unlinked: "
    assert re.match(of_test + r"psm_\w+ made at helper\.py:19; ", texts[0])
    assert re.match(of_test + r"named-\d+ made at test_it\.py:17; ", texts[1])
    assert re.match(of_test + r"psm_\w+ made at test_it\.py:21; ", texts[2])
    assert re.match(
        r"still there at the end of the fixture 'wide', and then unlinked: psm_\w+ made at "
        r"test_it\.py:9; ",
        texts[3],
    )


def test_what_a_child_makes_counts_as_the_test_s(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import signal

        import helper
        import pytest
        from helper import SharedMemory

        def test_leaves(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            ours.recv()
            ours.send("go")
            process.join()

        def test_killed(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            ours.recv()
            process.kill()
            process.join()

        def test_alive(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            ours.recv()

        def test_parent_unlinks(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            memory = SharedMemory(ours.recv())
            assert memory.buf[0] == 7
            memory.close()
            memory.unlink()
            ours.send("go")
            process.join()

        def test_sibling_unlinks(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            sibling = mp_context.Process(target=helper.unlinks, args=[ours.recv()])
            sibling.start()
            sibling.join()
            ours.send("go")
            process.join()

        def test_child_unlinks_what_the_test_made(mp_context):
            process = mp_context.Process(target=helper.unlinks, args=[helper.make()])
            process.start()
            process.join()

        def test_next(mp_context):
            assert not any(map(helper.there, helper.noted()))
        """
    )
    # Under fork the tracker of a child that has one of its own has its say, as in plain Python.
    for method in METHODS:
        if method == "fork":
            continue
        result = run_leaky(f"--start-method={method}")
        result.assert_outcomes(passed=7, warnings=4)
        texts = warnings_of(result)
        assert len(texts) == 3
        for text in texts:
            assert re.match(
                r"still there at the end of the test, and then unlinked: psm_\w+ made by "
                rf"\w+Process-\d+ \(pid \d+, {method}\) at helper\.py:19; ",
                text,
            )


@pytest.mark.parametrize("tracker", [True, False], ids=["tracker runs", "no tracker runs"])
def test_what_a_forked_child_makes_counts_as_well(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult], tracker: bool
) -> None:
    pytester.makepyfile(
        test_it=f"""
        from multiprocessing import resource_tracker

        import helper

        def test_leaves(mp_context):
            if {tracker}:
                resource_tracker.ensure_running()
            ours, process = helper.child(mp_context, helper.makes)
            ours.recv()
            ours.send("go")
            process.join()
        """
    )
    if tracker:
        result = run_leaky("--start-method=fork")
    else:  # which says so itself, as without the plugin
        with pytest.raises(AssertionError, match="resource_tracker"):
            run_leaky("--start-method=fork")
        result = pytester.runpytest_subprocess("-p", "startmethod", "--start-method=fork")
    result.assert_outcomes(passed=1, warnings=1)
    [text] = warnings_of(result)
    assert re.search(r"psm_\w+ made by ForkProcess-1 \(pid \d+, fork\) at helper\.py:19; ", text)


def test_a_manager_left_running_is_named_with_its_memory(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import signal

        import helper
        import multiprocessing

        KEPT = []

        def start():
            manager = helper.SharedMemoryManager(ctx=multiprocessing.get_context("spawn"))
            manager.start()
            helper.note(manager.SharedMemory(size=10).name)
            return manager

        def test_left_running(mp_context):
            KEPT.append(start())

        def test_shut_down(mp_context):
            start().shutdown()

        def test_context(mp_context):
            with helper.SharedMemoryManager() as manager:
                helper.note(manager.ShareableList([1, 2]).shm.name)
        """
    )
    result = run_leaky("--start-method=spawn")
    result.assert_outcomes(passed=3, warnings=2)
    [text] = warnings_of(result)
    assert re.search(r": psm_\w+ made at test_it\.py:12; ", text)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="track=False is new in Python 3.13")
def test_what_is_not_tracked_is_meant_to_stay(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import helper

        def makes(connection):
            memory = helper.SharedMemory(create=True, size=1, track=False)
            helper.note(memory.name)
            connection.send(memory.name)

        def test_it(mp_context):
            ours, process = helper.child(mp_context, makes)
            helper.SharedMemory(ours.recv(), track=False).close()
            process.join()
            helper.note(helper.SharedMemory(create=True, size=1, track=False).name)
        """,
    )
    result = run_watched("-W", "error")
    result.assert_outcomes(passed=len(METHODS))
    names = (pytester.path / "names.txt").read_text(encoding="utf-8").split()
    assert len(names) == 2 * len(METHODS)
    for name in names:
        (SHM / name).unlink()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="track=False is new in Python 3.13")
def test_the_parent_may_unlink_what_it_does_not_track(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import helper

        def test_it(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            memory = helper.SharedMemory(ours.recv(), track=False)
            memory.close()
            memory.unlink()
            ours.send("go")
            process.join()
        """,
    )
    result = run_watched("-W", "error")
    result.assert_outcomes(passed=len(METHODS))
    names = (pytester.path / "names.txt").read_text(encoding="utf-8").split()
    assert not any((SHM / name).exists() for name in names)


@pytest.mark.parametrize("by", ["the test", "the plugin"])
def test_semaphores_of_a_killed_child_are_unlinked(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult], by: str
) -> None:
    pytester.makepyfile(
        test_it=f"""
        import multiprocessing
        import signal

        import helper

        def queue(connection):
            context = multiprocessing.get_context("spawn")
            kept = context.Queue(), context.Lock()
            connection.send("sem." + kept[1]._semlock.name[1:])
            signal.pause()

        def test_it(mp_context):
            ours, process = helper.child(mp_context, queue)
            helper.note(ours.recv())
            assert helper.there(helper.noted()[-1])
            if {by == "the test"}:
                process.kill()
                process.join()

        def test_next(mp_context):
            assert not any(map(helper.there, helper.noted()))
        """
    )
    result = run_leaky("--start-method=spawn,forkserver")
    result.assert_outcomes(passed=4, warnings=2)
    texts = warnings_of(result)
    assert len(texts) == (2 if by == "the test" else 0)
    for text in texts:
        assert text.count("semaphore mp-") >= 4  # a queue has several
        assert re.search(r"semaphore mp-[\w-]+ made by \w+Process-\d+ \(pid \d+, ", text)


def test_locks_that_are_in_use_stay(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        from pathlib import Path

        import pytest

        KEPT = []

        def takes(lock):
            with lock:
                pass

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(mp_context, number):
            KEPT.append(mp_context.Lock())
            process = mp_context.Process(target=takes, args=[KEPT[-1]])
            process.start()
            process.join()
            assert process.exitcode == 0
            if mp_context.get_start_method() != "fork":
                assert all(Path("/dev/shm", "sem." + k._semlock.name[1:]).exists() for k in KEPT)

        def test_forget():
            KEPT.clear()
        """
    )
    for method in METHODS:
        result = run_watched("-W", f"error::{WARNING}", f"--start-method={method}")
        result.assert_outcomes(passed=3)
        assert "resource_tracker" not in result.stderr.str()


def test_an_untouched_suite_keeps_its_memory_until_the_session_ends(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import atexit

        import helper

        def test_makes():
            helper.make()

        def test_uses():
            [name] = helper.noted()
            helper.SharedMemory(name).close()

        def test_uses_again():
            test_uses()
            atexit.register(helper.unlinks, helper.make())
        """
    )
    result = run_leaky("--start-method=fork")
    result.assert_outcomes(passed=3, warnings=1)
    [text] = warnings_of(result)
    assert "still there at the end of the session, and then unlinked: psm_" in text
    assert result.stderr.str() == ""


def test_severity_goes_by_the_filters(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it=f"""
        import helper
        import pytest

        def test_error(mp_context):
            helper.make()

        @pytest.mark.filterwarnings("ignore::{WARNING}")
        def test_ignored(mp_context):
            helper.make()
        """
    )
    result = run_leaky("--start-method=spawn", "-W", f"error::{WARNING}")
    result.assert_outcomes(passed=2, errors=1, warnings=0)
    result.stdout.fnmatch_lines(["SharedMemoryLeakWarning: still there at the end of the test*"])


def test_what_another_run_makes_is_left_alone(
    pytester: pytest.Pytester, run_leaky: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import subprocess
        import sys

        import helper

        def test_it(mp_context):
            ours, process = helper.child(mp_context, helper.makes)
            name, own = ours.recv(), helper.make()
            program = "import helper, os; helper.make(); os._exit(0)"
            subprocess.run([sys.executable, "-c", program], check=True)
            if "INNER" not in os.environ:
                command = [sys.executable, "-m", "pytest", "-p", "startmethod", "-p", "impatient"]
                command += ["--start-method=spawn"]
                subprocess.run(command, check=True, env={**os.environ, "INNER": "1"})
                assert helper.there(name) and helper.there(own)
            ours.send("go")
            process.join()
        """
    )
    with pytest.raises(
        AssertionError, match="resource_tracker"
    ):  # the tracker of the program speaks of its memory
        run_leaky("--start-method=spawn")
    names = (pytester.path / "names.txt").read_text(encoding="utf-8").split()
    assert len(names) == 6
    assert not any((SHM / name).exists() for name in names)


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_nothing_is_said_where_a_test_unlinks_all(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    arguments: list[str],
) -> None:
    if arguments:
        pytest.importorskip("xdist", reason="it runs under xdist")
    pytester.makepyfile(
        test_it="""
        import helper
        import pytest

        def fills(name):
            memory = helper.SharedMemory(name)
            memory.buf[1] = 8
            memory.close()

        @pytest.mark.parametrize("number", range(3))
        def test_it(mp_context, number):
            memory = helper.SharedMemory(create=True, size=10)
            process = mp_context.Process(target=fills, args=[memory.name])
            process.start()
            process.join()
            assert memory.buf[1] == 8
            memory.close()
            memory.unlink()
        """,
    )
    methods = [method for method in METHODS if method != "fork"]
    plugins = ("xdist",) if arguments else ()
    selected = f"--start-method={','.join(methods)}"
    result = run_watched(*arguments, selected, "-W", "error", plugins=plugins)
    result.assert_outcomes(passed=3 * len(methods))
    assert "resource_tracker" not in result.stderr.str()
