"""A session that dies or can't start fails one test or is one error, and no session is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Runs = Callable[[pytest.RunResult], list[str]]

BOTH = "--start-method=fork,spawn"

SUITE = """
import multiprocessing
import os
import signal

import child
import pytest

def test_before():
    child.by_process()

def test_ends():
    child.by_process()
    if multiprocessing.get_start_method() == "spawn":
        {end}

def test_after():
    child.by_process()
"""


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize(
    ("end", "how", "printed"),
    [
        ("os._exit(3)", "exit code 3", ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV", "Fatal Python error: Segmentation"),
        ("pytest.exit('enough')", "exit code 2: _pytest.outcomes.Exit: enough", ""),
        ("raise KeyboardInterrupt", "exit code 2: KeyboardInterrupt", ""),
    ],
)
def test_the_test_that_ends_its_session_fails_and_the_others_run(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs, end: str, how: str, printed: str
) -> None:
    pytester.makepyfile(test_it=SUITE.format(end=end))
    result = run_watched("-v", BOTH, "--junitxml=junit.xml")
    assert runs(result) == [
        *("test_before PASSED", "test_ends PASSED", "test_after PASSED"),
        *("test_before[spawn] PASSED", "test_ends[spawn] FAILED", "test_after[spawn] PASSED"),
    ]
    assert f"the session under spawn ended with {how}" in result.outlines
    assert printed in result.stdout.str()
    assert "test_it.py::test_ends    passed: fork    failed: spawn" in result.outlines
    text = Path(pytester.path, "junit.xml").read_text(encoding="utf-8")
    assert text.count('<property name="start_method" value="spawn"') == 3


@pytest.mark.usefixtures("child_module")
def test_a_conftest_that_fails_under_one_start_method_is_one_error(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        if multiprocessing.get_start_method() == "spawn":
            raise LookupError("planted")
    """)
    pytester.makepyfile(test_it=SUITE.format(end="pass"))
    result = run_watched("-v", "--start-method=fork,spawn,forkserver")
    result.assert_outcomes(passed=6, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert any("ERROR collecting session under spawn" in line for line in result.outlines)
    assert any("LookupError: planted" in line for line in result.outlines)
    assert "not run under spawn: its session failed (3 runs)" in result.outlines
    remembered = Path(pytester.path, ".pytest_cache/v/cache/lastfailed")
    assert remembered.read_text(encoding="utf-8") == "{}"


@pytest.mark.usefixtures("child_module")
def test_a_plugin_that_fails_in_a_session_is_one_error_that_names_it(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(
        test_it=SUITE.format(end="pass"),
        fussy="""
            def pytest_configure(config):
                if hasattr(config, "workerinput"):
                    config.workerinput["of_fussy"]
        """,
    )
    result = run_watched(BOTH, plugins=("fussy",))
    result.assert_outcomes(passed=3, errors=1)
    # Where the environment says CI, pytest's short summary has the same message whole.
    [line] = [line for line in result.outlines if line.startswith("the session under spawn ended")]
    assert "ended with exit code 3: KeyError: 'of_fussy'" in line
    assert line.endswith("fussy.py:3)")


@pytest.mark.usefixtures("child_module")
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells of children")
@pytest.mark.parametrize("fails", [True, False])
def test_the_process_of_the_next_session_waits_for_its_turn_or_is_ended(
    pytester: pytest.Pytester,
    run_watched: Run,
    assert_nothing_left: Callable[[], None],
    fails: bool,
) -> None:
    pytester.makepyfile(
        test_it=f"""
            import multiprocessing
            import os
            from pathlib import Path

            import child

            def sessions():
                parent = os.getppid()
                return Path(f"/proc/{{parent}}/task/{{parent}}/children").read_text().split()

            def test_it():
                child.by_process()
                method, other = multiprocessing.get_start_method(), set()
                if method == "spawn":
                    while not other:
                        other = set(sessions()) - {{str(os.getpid())}}
                    Path("next").write_text(*other)
                    assert not {fails}
                if method == "forkserver":
                    assert sessions() == [str(os.getpid())] == [Path("next").read_text()]
        """
    )
    result = run_watched("-x", "-p", "no:xdist", "--start-method=fork,spawn,forkserver")
    result.assert_outcomes(**({"passed": 1, "failed": 1} if fails else {"passed": 3}))
    assert Path("next").exists()
    assert_nothing_left()


HANGS = """
import multiprocessing
import os
import time
from pathlib import Path

import child

def test_hangs():
    child.by_process()
    if multiprocessing.get_start_method() == "spawn":
        if {interrupted}:  # nobody is there to end it after another signal
            multiprocessing.Process(target=time.sleep, args=[300]).start()
        Path("part").write_text(str(os.getpid()))
        Path("part").rename("hangs")
        while True:
            time.sleep(60)
"""

HANGS_AT_ITS_END = """
import time
from pathlib import Path

def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        Path("hangs").touch()
        time.sleep(60)
"""


@pytest.mark.usefixtures("child_module")
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the session")
@pytest.mark.parametrize(
    ("number", "group", "hangs"),
    [
        (signal.SIGINT, True, "test"),
        (signal.SIGINT, False, "test"),
        (signal.SIGINT, False, "exit"),
        (signal.SIGTERM, False, "test"),
        (signal.SIGKILL, False, "test"),
    ],
    ids=["SIGINT to all", "SIGINT", "SIGINT while a session ends", "SIGTERM", "SIGKILL"],
)
def test_no_session_outlives_pytest(
    pytester: pytest.Pytester,
    assert_nothing_left: Callable[[], None],
    number: signal.Signals,
    group: bool,
    hangs: str,
) -> None:
    if hangs == "exit":
        pytester.makeconftest(HANGS_AT_ITS_END)
        pytester.makepyfile(test_it=SUITE.format(end="pass"))
    else:
        pytester.makepyfile(test_it=HANGS.format(interrupted=number == signal.SIGINT))
    # The process of a session that has not begun is there, too.
    command = [sys.executable, "-m", "pytest", "--start-method=fork,spawn,forkserver"]
    command += ["-p", "no:xdist", "--junitxml=junit.xml"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    deadline = time.monotonic() + 50
    while not Path("hangs").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Path("hangs").exists()
    os.killpg(process.pid, number) if group else process.send_signal(number)
    output, _ = process.communicate(timeout=50)
    assert_nothing_left()
    if number == signal.SIGINT:
        assert process.returncode == pytest.ExitCode.INTERRUPTED
        assert "KeyboardInterrupt" in output
        assert "INTERNALERROR" not in output
        assert Path("junit.xml").exists()


@pytest.mark.usefixtures("child_module")
def test_a_test_that_its_timeout_ends_fails_alone(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs
) -> None:
    pytest.importorskip("pytest_timeout", reason="this run has no pytest-timeout")
    pytester.makepyfile(test_it=SUITE.format(end="import time; time.sleep(60)"))
    pytester.makeconftest("""
        import pytest

        def pytest_collection_modifyitems(items):
            for item in items:
                if "test_ends" in item.name:  # on a busy machine the others may take their time
                    item.add_marker(pytest.mark.timeout(3))
    """)
    for method in ("signal", "thread"):
        result = run_watched("-v", BOTH, f"--timeout-method={method}", plugins=("timeout",))
        result.assert_outcomes(passed=5, failed=1)
        assert "test_ends[spawn] FAILED" in runs(result)
        assert "Timeout" in result.stdout.str()


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_a_debugger_has_no_session_and_the_summary_says_so(
    pytester: pytest.Pytester, run_watched: Run, option: str
) -> None:
    pytester.makepyfile(test_it="import child\ndef test_it():\n    child.by_process()")
    pytester.makeconftest("""
        import sys
        def pytest_configure(config):
            sys.breakpointhook = lambda *args, **kwargs: None
            config.option.trace, config.startmethod_trace = False, config.option.trace
        def pytest_runtestloop(session):
            session.config.option.trace = session.config.startmethod_trace
    """)
    result = run_watched(BOTH, option)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1)
    why = f"not run under spawn: {option} needs the terminal (1 run, -v names them)"
    command = result.outlines[result.outlines.index(why) + 1]
    assert command.startswith("    pytest --start-method=spawn ")
    assert command.endswith(f" {option}")
    assert BOTH not in command


@pytest.mark.usefixtures("child_module")
def test_plugin_objects_have_no_session_but_names_of_plugins_have(
    pytester: pytest.Pytester, assert_nothing_left: Callable[[], None]
) -> None:
    pytester.makepyfile(
        test_it="import child\ndef test_it(made):\n    child.by_process()",
        named="import pytest\n@pytest.fixture\ndef made(): pass",
        script=f"""
            import sys

            import named
            import pytest

            class Plugin:
                @pytest.fixture
                def made(self):
                    pass

            if __name__ == "__main__":
                plugins = {{"object": Plugin(), "module": named, "string": "named"}}
                sys.exit(pytest.main(["-p", "no:xdist", "{BOTH}"], plugins=[plugins[sys.argv[1]]]))
        """,
    )
    for kind, passed in (("object", 1), ("module", 2), ("string", 2)):
        result = pytester.runpython_c(
            f"import sys, runpy; sys.argv[1:] = ['{kind}']; "
            "runpy.run_path('script.py', run_name='__main__')"
        )
        assert result.ret == 0
        result.assert_outcomes(passed=passed)
        reason = "not run under spawn: pytest.main() was given plugin objects (Plugin)"
        assert (reason in result.outlines) is (kind == "object")
        assert ("    pytest --start-method=spawn -p no:xdist" in result.outlines) is (
            kind == "object"
        )
    assert_nothing_left()
