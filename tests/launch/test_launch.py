"""Children start fast, however pytest is started, and everything is restored at the end."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import weakref
from importlib import metadata
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = [
    pytest.mark.needs("forkserver"),  # though some are about spawn, too
    pytest.mark.usefixtures("ask_module", "helper"),
]

from pytest_startmethod.launch.forkservers import Forkserver, Preload  # noqa: E402 (see above)

# A user's script that runs pytest, and whose own functions may be targets.
SCRIPT = """
    import sys

    def work(connection):
        connection.send("done in " + __name__)

    if __name__ == "__main__":
        import pytest

        sys.exit(pytest.main(sys.argv[1:]))
"""

# The targets in it import nothing of pytest.
HELPER = """
    import os
    import sys

    from ask import ask

    def modules(connection):
        connection.send(set(sys.modules))

    def main(connection):
        connection.send(sys.modules["__main__"].__name__)

    def imported_in(connection, name):
        connection.send((getattr(sys.modules.get(name), "PID", None), os.getppid()))
"""

RECORDS_ITS_PROCESS = "import os\nPID = os.getpid()\n"


@pytest.fixture(params=["script", "module", "workers", "main"])
def run(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> Run:
    """Run pytest: as its script, by ``-m``, with workers, and by the script of a user."""
    if request.param == "workers":
        pytest.importorskip("xdist", reason="this run has no pytest-xdist")
    script = shutil.which("pytest", path=sysconfig.get_path("scripts"))
    assert script is not None
    own = pytester.makepyfile(run=SCRIPT)
    command = {
        "script": [script],
        "module": [sys.executable, "-m", "pytest"],
        "workers": [script, "-n", "2"],
        "main": [sys.executable, str(own)],
    }[request.param]
    return lambda *args: pytester.run(*command, *args, timeout=60)


def test_no_child_runs_the_script_of_pytest_or_imports_pytest_for_a_target_in_a_helper(
    pytester: pytest.Pytester, run: Run, request: pytest.FixtureRequest
) -> None:
    users = request.node.callspec.params["run"] == "main"
    pytester.makepyfile(f"""
        import helper

        def test_modules(mp_context):
            modules = helper.ask(mp_context, helper.modules)
            method = mp_context.get_start_method()
            # The forkserver has preloaded it, and a fork has what its parent has.
            assert ("_pytest" in modules) == (method != "spawn")
            if method != "fork":
                ran_again = helper.ask(mp_context, helper.main) == "__mp_main__"
                assert ran_again == {users}
    """)
    run().assert_outcomes(passed=3)


def test_a_users_main_module_may_define_targets(
    pytester: pytest.Pytester,
) -> None:
    script = pytester.makepyfile(run=SCRIPT)
    pytester.makepyfile("""
        import __main__
        import helper

        def test_main(mp_context):
            answer = helper.ask(mp_context, __main__.work)
            forked = mp_context.get_start_method() == "fork"
            assert answer == "done in " + ("__main__" if forked else "__mp_main__")
    """)
    pytester.run(sys.executable, script, timeout=60).assert_outcomes(passed=3)


def test_a_main_module_that_resembles_pytests_script_may_define_targets(
    pytester: pytest.Pytester,
) -> None:
    entry = next(e for e in metadata.distribution("pytest").entry_points if e.name == "pytest")
    script = pytester.makepyfile(
        run=f"""
        import sys

        from {entry.module} import {entry.attr}

        def work(connection):
            connection.send("done in " + __name__)

        if __name__ == "__main__":
            sys.exit({entry.attr}())
    """
    )
    pytester.makepyfile("""
        import __main__
        import helper

        def test_main(mp_context):
            assert helper.ask(mp_context, __main__.work).startswith("done in ")
    """)
    pytester.run(sys.executable, script, timeout=60).assert_outcomes(passed=3)


def test_everything_is_restored_at_the_end_and_no_forkserver_is_left(
    pytester: pytest.Pytester,
) -> None:
    script = pytester.makepyfile(
        run="""
        import ctypes  # keeps a file open, where Python was built with a certain libffi
        import multiprocessing
        import os
        import sys
        from multiprocessing import forkserver, resource_tracker, spawn

        import pytest

        def is_open(descriptor):
            try:
                os.fstat(descriptor)
            except OSError:
                return False
            return True

        def is_alive(pid):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
            return True

        def state():
            return {
                "spec": __spec__,
                "preparation": spawn.get_preparation_data,
                "connect": forkserver.connect_to_new_process,
                "server": vars(forkserver._forkserver).copy(),
                "preload": list(forkserver._forkserver._preload_modules),
                "start": multiprocessing.process.BaseProcess.start,
                "path": list(sys.path),
                "default": multiprocessing.get_start_method(allow_none=True),
                "descriptors": [fd for fd in range(256) if is_open(fd)],
                "tracker": resource_tracker._resource_tracker._pid,
            }

        if __name__ == "__main__":
            resource_tracker.ensure_running()  # which stays on, as it does for every program
            before = state()
            assert pytest.main(sys.argv[1:]) == 0
            after = state()
            assert after == before
            with open("servers") as file:
                servers = {int(line) for line in file}
            assert len(servers) >= 2
            assert not any(map(is_alive, servers))
            while (child := os.waitpid(-1, os.WNOHANG)[0]):
                raise AssertionError(f"{child} is left")
    """
    )
    pytester.makepyfile("""
        import sys

        import helper
        import pytest

        @pytest.mark.parametrize("value", ["one", "two", "three", "four"])
        def test_children(mp_context, monkeypatch, value):
            monkeypatch.setenv("MINE", value)
            _, parent = helper.ask(mp_context, helper.imported_in, "helper")
            if mp_context.get_start_method() == "forkserver":
                with open("servers", "a") as file:
                    print(parent, file=file)
    """)
    result = pytester.run(sys.executable, script, timeout=60)
    assert result.ret == 0, result.stderr.str()
    result.assert_outcomes(passed=12)


def test_the_forkserver_preloads_what_the_ini_option_names(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makeini("[pytest]\nstart_method_preload = heavy package.heavy\npythonpath = .")
    pytester.makepyfile(**{"heavy": RECORDS_ITS_PROCESS, "package/heavy": RECORDS_ITS_PROCESS})
    pytester.makepyfile("""
        import helper
        import pytest

        @pytest.mark.parametrize("name", ["heavy", "package.heavy"])
        @pytest.mark.start_methods("forkserver")
        def test_preload(mp_context, name):
            imported_in, parent = helper.ask(mp_context, helper.imported_in, name)
            assert imported_in == parent
    """)
    run().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "ModuleNotFoundError: No module named 'weighty'"),
        ("import nothing", "ModuleNotFoundError: No module named 'nothing'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_preload_that_cannot_be_imported_is_a_usage_error(
    pytester: pytest.Pytester,
    assert_usage_error: Callable[[pytest.RunResult, str], None],
    source: str | None,
    reason: str,
) -> None:
    pytester.makeini("[pytest]\nstart_method_preload = json weighty")
    if source:
        pytester.makepyfile(weighty=source)
    pytester.makepyfile("def test_nothing(): pass")
    message = f"ini-option start_method_preload: can't import 'weighty': {reason}"
    assert_usage_error(pytester.runpytest_subprocess(timeout=60), message)


@pytest.mark.parametrize("place", ["conftest", "test"])
def test_a_preload_that_the_user_set_is_respected(pytester: pytest.Pytester, place: str) -> None:
    sets = "multiprocessing.set_forkserver_preload(['heavy'])"
    pytester.makeini("[pytest]\nstart_method_preload = json")
    pytester.makepyfile(heavy=RECORDS_ITS_PROCESS)
    pytester.makeconftest(f"import multiprocessing\n{sets if place == 'conftest' else ''}")
    pytester.makepyfile(f"""
        import multiprocessing

        import helper
        import pytest

        @pytest.mark.start_methods("forkserver")
        def test_preload(mp_context):
            {sets if place == "test" else ""}
            imported_in, parent = helper.ask(mp_context, helper.imported_in, "heavy")
            assert imported_in == parent
            assert "_pytest" not in helper.ask(mp_context, helper.modules)
    """)
    pytester.runpytest_subprocess(timeout=60).assert_outcomes(passed=1)


@pytest.mark.skipif(sys.version_info < (3, 15), reason="on_error is new in Python 3.15")
def test_a_preload_that_the_user_wants_to_fail_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import helper
        import pytest

        @pytest.mark.start_methods("forkserver")
        def test_preload(mp_context):
            multiprocessing.set_forkserver_preload(["nothing"], on_error="fail")
            with pytest.raises((EOFError, ConnectionError)):
                helper.ask(mp_context, helper.modules)
    """)
    pytester.runpytest_subprocess(timeout=60).assert_outcomes(passed=1)


def test_a_folder_for_temporary_files_too_long_for_a_socket_works_or_is_named_as_the_cause(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pytester.path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    pytester.makepyfile("""
        import helper
        import pytest

        @pytest.mark.start_methods("forkserver")
        def test_child(mp_context):
            assert "helper" in helper.ask(mp_context, helper.modules)
    """)
    result = pytester.runpytest_subprocess(timeout=60)
    if result.parseoutcomes() != {"passed": 1}:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["hint: *set TMPDIR to a shorter one"])


class Held:
    """What holds a process, as multiprocessing does."""

    returncode = None

    def __init__(self, sentinel: int) -> None:
        self.sentinel = sentinel


def test_a_child_is_alive_until_its_exit_code_is_sent() -> None:
    server = Forkserver(forkserver, Preload(("__main__",)))
    try:
        sentinel, data = server.connect([])
        popen = Held(sentinel)
        server.popens.append(weakref.ref(popen))
        assert forkserver.read_signed(sentinel) > 0
        assert server.has_children()
        os.close(data)  # what the child is to do never comes
        wait([sentinel])
        assert not server.has_children()
        assert forkserver.read_signed(sentinel) == 1  # which is there to be read all the same
        os.close(sentinel)
    finally:
        server.stop()


def test_pytest_may_be_run_by_a_main_module_without_a_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import helper

        def test_child(mp_context):
            assert "helper" in helper.ask(mp_context, helper.modules)
    """)
    code = "import pytest, sys; sys.exit(pytest.main())"
    pytester.run(sys.executable, "-c", code, timeout=60).assert_outcomes(passed=3)
