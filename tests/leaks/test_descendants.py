"""What a test's children start and leave ends with the test, wherever it went."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., pytest.RunResult]
    Noted = Callable[[], list[int]]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands down a mark"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()
WARNING = "pytest_startmethod.ChildProcessLeakWarning"

HELPER = """
import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

def note(pid):
    with Path("pids.txt").open("a") as file:
        file.write(f"{pid}\\n")

def lives(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"

def noted():
    return list(map(int, Path("pids.txt").read_text().split()))

def pauses(connection, obedient=True):
    if not obedient:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(os.getpid())
    while True:
        signal.pause()

def run(command, **kwargs):
    return int(subprocess.run(command, stdout=subprocess.PIPE, shell=True, **kwargs).stdout)

def double_fork(connection, obedient=True):
    "Become a daemon as books tell it."
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    pauses(connection, obedient)

def ignores_sigterm(connection):
    double_fork(connection, obedient=False)

def forks(connection):
    if not os.fork():
        pauses(connection)

def shell_job(connection):
    connection.send(run("sleep 1000 >/dev/null & echo $!"))

def nohup(connection):
    connection.send(run("nohup sleep 1000 >/dev/null 2>&1 & echo $!"))

def empty_environment(connection):
    connection.send(run("setsid /usr/bin/env -i /bin/sleep 1000 >/dev/null & echo $!"))

def program(connection):
    connection.send(subprocess.Popen(["sleep", "1000"]).pid)

def killed(connection):
    program(connection)
    os.kill(os.getpid(), signal.SIGKILL)

def grandchild(connection):
    process = multiprocessing.Process(target=pauses, args=[connection])
    process.start()
    os._exit(0)

def pool(connection):
    ready, told = multiprocessing.Pipe(duplex=False)
    kept = multiprocessing.get_context("fork").Pool(1, pauses, [told])
    connection.send(ready.recv())
    os._exit(0)

def below_a_spawned_one(connection):
    process = multiprocessing.get_context("spawn").Process(target=forks, args=[connection])
    process.start()
    process.join()

def below_a_forkserver(connection):
    process = multiprocessing.get_context("forkserver").Process(target=forks, args=[connection])
    process.start()
    process.join()

def start(context, target, join=True, daemon=False):
    "Start a child, and return the pid of what it leaves."
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=[sender], daemon=daemon)
    process.start()
    pid = receiver.recv()
    note(pid)
    if join:
        process.join()
        assert lives(pid)
    return pid

def both(connection):
    "A child that stays, and what it started."
    program(connection)
    while True:
        signal.pause()
"""

KINDS = (
    "double_fork",
    "ignores_sigterm",
    "forks",
    "shell_job",
    "nohup",
    "empty_environment",
    "program",
    "killed",
    "grandchild",
    "pool",
    "below_a_spawned_one",
    "below_a_forkserver",
)


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def noted(pytester: pytest.Pytester) -> Iterator[Callable[[], list[int]]]:
    """Return the pids of what the children of a suite left; none of it outlives this test."""

    def find() -> list[int]:
        file = pytester.path / "pids.txt"
        return list(map(int, file.read_text(encoding="utf-8").split())) if file.exists() else []

    yield find
    for pid in filter(lives, find()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_what_children_leave_is_ended_before_the_next_test_and_named(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted, method: str
) -> None:
    pytester.makepyfile(
        test_it=f"""
        import helper
        import pytest

        @pytest.mark.parametrize("kind", {KINDS})
        def test_leaves(mp_context, kind):
            assert not any(map(helper.lives, helper.noted()))
            helper.start(mp_context, getattr(helper, kind))

        def test_next(mp_context):
            assert len(helper.noted()) == {len(KINDS)}
            assert not any(map(helper.lives, helper.noted()))
        """
    )
    (pytester.path / "pids.txt").touch()
    result = run_impatient(f"--start-method={method}")
    result.assert_outcomes(passed=len(KINDS) + 1, warnings=len(KINDS))
    found = [line for line in result.outlines if "ChildProcessLeakWarning: " in line]
    for line, pid in zip(found, noted(), strict=True):
        assert "still alive at the end of the test, and then ended: " in line
        assert f"(pid {pid}) started by " in line  # nothing else is named
        assert line.count("(pid ") == 2
        assert f", {method}), itself started at helper.py:" in line
    assert sum("sleep 1000 (pid " in line for line in found) == 5
    assert not any(map(lives, noted()))


def test_what_is_below_a_child_that_has_to_be_ended_is_ended_with_it(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytester.makepyfile(
        test_it="""
        import helper

        def test_it(mp_context):
            helper.start(mp_context, helper.both, join=False)
        """
    )
    result = run_impatient("-W", f"error::{WARNING}")
    result.assert_outcomes(passed=len(METHODS), errors=len(METHODS))
    for method in METHODS:
        result.stdout.re_match_lines([rf".*Process-\d+ \(pid \d+, {method}\) started at .*"])
    assert result.stdout.str().count("sleep 1000 (pid ") >= len(METHODS)
    assert len(noted()) == len(METHODS)
    assert not any(map(lives, noted()))


def test_what_belongs_to_a_wider_fixture_lives_as_long_as_it(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytester.makepyfile(
        test_it="""
        import helper
        import pytest

        @pytest.fixture(scope="module")
        def pid(mp_context):
            return helper.start(mp_context, helper.double_fork)

        def test_one(pid, mp_context):
            assert helper.lives(pid)

        def test_two(pid, mp_context):
            process = mp_context.Process(target=abs, args=[1])
            process.start()
            process.join()
            assert helper.lives(pid)
        """
    )
    result = run_impatient("-o", "start_method_scope=module")
    result.assert_outcomes(passed=2 * len(METHODS), warnings=len(METHODS))
    assert result.stdout.str().count("alive at the end of the fixture 'pid', ") == len(METHODS)
    assert not any(map(lives, noted()))


def test_a_fixture_may_end_with_a_test_that_asks_for_nothing(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytester.makepyfile(
        test_it="""
        import multiprocessing

        import helper
        import pytest

        @pytest.fixture(scope="module")
        def pid():
            return helper.start(multiprocessing.get_context("fork"), helper.double_fork)

        def test_asks(mp_context, pid):
            assert helper.lives(pid)

        def test_asks_for_nothing(pid):
            assert helper.lives(pid)
        """,
        test_later="""
        import helper

        def test_it():
            assert not any(map(helper.lives, helper.noted()))
        """,
    )
    result = run_impatient("--start-method=fork")
    result.assert_outcomes(passed=3, warnings=1)
    assert "alive at the end of the fixture 'pid', " in result.stdout.str()
    assert not any(map(lives, noted()))


@pytest.mark.parametrize("where", ["marker", "ini", "untouched"])
def test_a_daemon_stays_where_the_filters_ignore_the_warning(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run_impatient: Run,
    noted: Noted,
    where: str,
) -> None:
    pytester.makepyfile(
        test_it=f"""
        import multiprocessing

        import helper
        import pytest

        @pytest.mark.filterwarnings({"default" if where == "ini" else "ignore"!r} "::{WARNING}")
        def test_stays({"mp_context" if where == "marker" else ""}):
            helper.start(multiprocessing.get_context("fork"), helper.double_fork)

        @pytest.mark.filterwarnings("ignore::{WARNING}")
        def test_left_by_no_setsid(mp_context):
            helper.start(mp_context, helper.forks)
        """
    )
    if where == "ini":
        ini = f"[pytest]\nfilterwarnings = ignore::{WARNING}\n"
        (pytester.path / "pytest.ini").write_text(ini, encoding="utf-8")
        suite = pytester.path / "test_it.py"
        text = suite.read_text(encoding="utf-8").replace("@pytest.mark.filterwarnings", "# ")
        suite.write_text(text.replace("test_stays()", "test_stays(mp_context)"), encoding="utf-8")
    monkeypatch.setenv("STARTED_IN", "elsewhere")  # one is meant to be left
    result = run_impatient("--start-method=fork")
    result.assert_outcomes(passed=2, warnings=0)
    stays, ends = noted()
    assert lives(stays)
    assert not lives(ends)


def test_what_no_child_of_the_test_started_is_left_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, run_impatient: Run, noted: Noted
) -> None:
    """Not the test's own program, its daemon, nor what was there before; here, of another run."""
    pytester.makepyfile(
        test_it="""
        import os
        import subprocess
        import sys

        import helper

        def test_it(mp_context):
            helper.note(subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL).pid)
            helper.note(helper.run("setsid sleep 1000 >/dev/null & echo $!"))
            process = mp_context.Process(target=abs, args=[1])
            process.start()
            process.join()

        def test_another_run_at_once(mp_context):
            own = helper.start(mp_context, helper.double_fork)
            if "INNER" not in os.environ:
                command = [sys.executable, "-m", "pytest", "-p", "startmethod", "-p", "impatient"]
                command += ["--start-method=fork,spawn"]
                environ = {**os.environ, "INNER": "1"}
                subprocess.run([*command, "-k", "another"], check=True, env=environ)
                assert helper.lives(own)
        """
    )
    monkeypatch.setenv("STARTED_IN", "elsewhere")  # two are meant to be left, of each run
    result = run_impatient("--start-method=fork,spawn")
    result.assert_outcomes(passed=4, warnings=2)
    pids = noted()
    assert [lives(pid) for pid in pids[:4]] == [True] * 4
    assert not any(map(lives, pids[4:]))
    assert len(pids) > 6


def test_an_untouched_suite_keeps_it_until_the_session_ends(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytester.makepyfile(
        test_it="""
        import multiprocessing

        import helper

        def test_starts():
            helper.start(multiprocessing, helper.double_fork)

        def test_uses():
            [pid] = helper.noted()
            assert helper.lives(pid)
            process = multiprocessing.Process(target=abs, args=[1])
            process.start()
            process.join()

        def test_uses_again():
            test_uses()
        """
    )
    result = run_impatient("--start-method=fork")
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(["*ChildProcessLeakWarning: still alive at the end of the sess*"])
    assert not any(map(lives, noted()))


def test_what_a_daemon_started_ends_after_it_when_python_exits(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytester.makepyfile(
        test_it="""
        import multiprocessing

        import helper

        def test_it():
            helper.start(multiprocessing, helper.both, join=False, daemon=True)
        """
    )
    result = run_impatient("--start-method=fork")
    result.assert_outcomes(passed=1, warnings=0)
    result.stderr.fnmatch_lines(["ChildProcessLeakWarning: still alive*: sleep 1000 (pid *"])
    assert len(noted()) == 1
    assert not any(map(lives, noted()))


def test_workers_of_xdist_leave_nothing_and_live_on(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    pytest.importorskip("xdist", reason="it runs under xdist")
    pytester.makepyfile(
        test_it="""
        import helper
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(mp_context, number):
            helper.start(mp_context, helper.double_fork)
        """
    )
    result = run_impatient("-n", "2", plugins=("xdist",))
    result.assert_outcomes(passed=3 * len(METHODS), warnings=3 * len(METHODS))
    assert len(noted()) == 3 * len(METHODS)
    assert not any(map(lives, noted()))


@pytest.mark.parametrize("asks", [True, False], ids=["asks", "untouched"])
def test_pytest_in_a_pipe_ends(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, noted: Noted, asks: bool
) -> None:
    argument = "mp_context" if asks else ""
    pytester.makepyfile(
        test_it=f"""
        import multiprocessing

        import helper

        def test_it({argument}):
            helper.start(multiprocessing, helper.double_fork)
        """,
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [sys.executable, "-m", "pytest", "-p", "startmethod", "--start-method=fork", "-s"]
    done = subprocess.run(
        f"{shlex.join(command)} | cat", shell=True, check=True, stdout=subprocess.PIPE, timeout=60
    )
    assert b"1 passed, 1 warning" in done.stdout
    assert not any(map(lives, noted()))


def test_orphans_that_come_to_pytest_itself_are_ended_and_waited_for(
    pytester: pytest.Pytester, run_impatient: Run, noted: Noted
) -> None:
    """As to process 1 of a container."""
    pytester.makeconftest("""
        import ctypes

        SET_CHILD_SUBREAPER = 36

        def pytest_configure():
            assert ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    """)
    pytester.makepyfile(
        test_it="""
        import os
        import subprocess
        from pathlib import Path

        import helper

        def test_it(mp_context):
            pid = helper.start(mp_context, helper.double_fork)
            assert Path(f"/proc/{pid}/stat").read_text().split()[3] == str(os.getpid())

        def test_next(mp_context):
            assert not any(Path(f"/proc/{pid}").exists() for pid in helper.noted())

        def test_own_program(mp_context):
            helper.start(mp_context, helper.program)
            program = subprocess.Popen(["sleep", "1000"])
            helper.note(program.pid)

        def test_lives_on(mp_context):
            *_, pid = helper.noted()
            assert helper.lives(pid)
            os.kill(pid, 9)
        """
    )
    result = run_impatient("--start-method=spawn")
    result.assert_outcomes(passed=4, warnings=2)
    assert len(noted()) == 3
    assert not any(map(lives, noted()))


def test_a_run_within_a_child_leaves_nothing_either(
    pytester: pytest.Pytester, run_impatient: Run
) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import subprocess
        import sys

        import helper

        def runs():
            command = [sys.executable, "-m", "pytest", "-p", "startmethod", "-p", "impatient"]
            command += ["--start-method=fork", __file__]
            done = subprocess.run(command, env={**os.environ, "INNER": "1"}, stdout=subprocess.PIPE)
            assert b"1 passed, 1 warning" in done.stdout

        def test_it(mp_context):
            if "INNER" in os.environ:
                helper.start(mp_context, helper.double_fork)
                return
            process = mp_context.Process(target=runs)
            process.start()
            process.join()
            assert process.exitcode == 0
            [pid] = helper.noted()
            assert not helper.lives(pid)
        """
    )
    result = run_impatient("--start-method=spawn", "-W", "error")
    result.assert_outcomes(passed=1)


def test_a_test_notices_nothing_of_the_mark(pytester: pytest.Pytester, run_impatient: Run) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import resource
        import subprocess

        import helper
        import pytest

        def limit():
            return resource.getrlimit(resource.RLIMIT_RTTIME)

        def of_program():
            limits = subprocess.check_output(["cat", "/proc/self/limits"], text=True)
            return next(line for line in limits.splitlines() if "realtime timeout" in line)

        def test_before_and_after(mp_context):
            before, environ = limit(), dict(os.environ)
            program = of_program()
            process = mp_context.Process(target=abs, args=[1])
            process.start()
            assert (limit(), of_program()) == (before, program)
            process.join()
            assert process.exitcode == 0
            assert dict(os.environ) == environ

        @pytest.fixture
        def own_limit():
            before = limit()
            resource.setrlimit(resource.RLIMIT_RTTIME, (1_000_000, before[1]))
            yield
            resource.setrlimit(resource.RLIMIT_RTTIME, before)

        def test_a_limit_of_its_own_stays(own_limit, mp_context):
            receiver, sender = mp_context.Pipe(duplex=False)
            process = mp_context.Process(target=send_limit, args=[sender])
            process.start()
            if mp_context.get_start_method() != "forkserver":  # which had none at its own start
                assert receiver.recv()[0] == 1_000_000
            process.join()
            assert limit()[0] == 1_000_000

        def test_another_has_its_children_marked_again(mp_context):
            receiver, sender = mp_context.Pipe(duplex=False)
            process = mp_context.Process(target=send_limit, args=[sender])
            process.start()
            process.join()
            assert receiver.recv()[0] > 1 << 62

        def send_limit(connection):
            connection.send(limit())
        """
    )
    result = run_impatient("-W", "error")
    result.assert_outcomes(passed=3 * len(METHODS))


def test_processes_are_looked_for_once_and_only_after_a_test_that_started_one(
    pytester: pytest.Pytester, run_impatient: Run
) -> None:
    pytester.makepyfile(
        counting="""
        from pytest_startmethod.leaks import descendants

        LOOKS = []
        find = descendants._find

        def counting(*args, **kwargs):
            LOOKS.append(args)
            return find(*args, **kwargs)

        descendants._find = counting
        """,
        test_it="""
        import counting

        def test_none(mp_context):
            pass

        def test_was_not_looked_for(mp_context):
            assert counting.LOOKS == []

        def test_some(mp_context):
            for _ in range(3):
                process = mp_context.Process(target=abs, args=[1])
                process.start()
                process.join()

        def test_was_looked_for(mp_context):
            assert len(counting.LOOKS) == 1
        """,
    )
    result = run_impatient("--start-method=fork", plugins=("counting",))
    result.assert_outcomes(passed=4)
