"""Children have the environment and output of their test, as if it were the only one."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Results = dict[str, Any]

pytestmark = [
    pytest.mark.needs("forkserver"),  # though some are about spawn, too
    pytest.mark.usefixtures("ask_module", "helper"),
]

HELPER = """
    import os
    import sys

    from ask import ask

    def variable(connection, name):
        connection.send(os.environ.get(name))

    def say(connection, text):
        print(text)
        print(text, file=sys.stderr)
        connection.send(None)

    def parent(connection):
        connection.send(os.getppid())
"""

CONFTEST = """
    import json
    import os

    def pytest_addoption(parser):
        parser.addoption("--backwards", action="store_true")

    def pytest_collection_modifyitems(config, items):
        if config.getoption("--backwards"):
            items.reverse()

    def pytest_runtest_logreport(report):
        if report.when == "call":
            with open(os.environ["RESULTS"], "a") as file:
                said = report.capstdout, report.capstderr
                print(json.dumps([report.nodeid, [report.outcome, *said]]), file=file)
"""

SUITE = """
    import os

    import helper
    import pytest

    def test_first(mp_context):
        assert helper.ask(mp_context, helper.variable, "MINE") is None
        assert helper.ask(mp_context, helper.variable, "OUTER") == "outer"

    def test_setenv(mp_context, monkeypatch):
        monkeypatch.setenv("MINE", "by monkeypatch")
        assert helper.ask(mp_context, helper.variable, "MINE") == "by monkeypatch"

    def test_setenv_of_a_name_like_pytests_own(mp_context, monkeypatch):
        monkeypatch.setenv("PYTEST_MINE", "by monkeypatch")
        assert helper.ask(mp_context, helper.variable, "PYTEST_MINE") == "by monkeypatch"

    def test_delenv(mp_context, monkeypatch):
        monkeypatch.delenv("OUTER")
        assert helper.ask(mp_context, helper.variable, "OUTER") is None

    def test_environ(mp_context):
        os.environ["MINE"] = "by hand"
        try:
            assert helper.ask(mp_context, helper.variable, "MINE") == "by hand"
            os.environ["MINE"] = "by hand again"
            assert helper.ask(mp_context, helper.variable, "MINE") == "by hand again"
        finally:
            del os.environ["MINE"]

    def test_capfd(mp_context, capfd):
        helper.ask(mp_context, helper.say, "heard by capfd")
        assert capfd.readouterr() == ("heard by capfd\\n", "heard by capfd\\n")

    def test_failure(mp_context):
        helper.ask(mp_context, helper.say, "heard by the report")
        assert helper.ask(mp_context, helper.variable, "PYTEST_MINE")

    def test_capfd_again(mp_context, capfd):
        helper.ask(mp_context, helper.say, "heard by capfd again")
        assert capfd.readouterr() == ("heard by capfd again\\n", "heard by capfd again\\n")

    def test_last(mp_context):
        assert helper.ask(mp_context, helper.variable, "MINE") is None
        assert helper.ask(mp_context, helper.variable, "OUTER") == "outer"
"""


@pytest.fixture
def results(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Results]:
    """Run the suite; return by test how it ended and what its children said."""
    monkeypatch.setenv("OUTER", "outer")
    monkeypatch.setenv("RESULTS", str(pytester.path / "results"))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_alone=SUITE)

    def run(*args: str) -> Results:
        path = pytester.path / "results"
        path.unlink(missing_ok=True)
        pytester.runpytest_subprocess(*args, timeout=60)
        return dict(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())

    return run


def test_a_suite_gives_the_same_results_forwards_and_backwards_and_one_test_at_a_time(
    results: Callable[..., Results],
) -> None:
    forwards = results()
    assert len(forwards) == 9 * 3
    for nodeid, (outcome, said, said_of_errors) in forwards.items():
        fails = "test_failure[" in nodeid
        assert outcome == ("failed" if fails else "passed")
        assert said == said_of_errors == ("heard by the report\n" if fails else "")
    assert results("--backwards") == forwards
    for nodeid, result in forwards.items():
        if nodeid.endswith("[forkserver]"):
            assert results(nodeid) == {nodeid: result}


def test_workers_give_the_same_results(results: Callable[..., Results]) -> None:
    pytest.importorskip("xdist", reason="this run has no pytest-xdist")
    assert results("-n", "2", "-p", "no:cacheprovider") == results()


def test_a_fresh_forkserver_takes_over_only_where_it_must(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import helper
        import pytest

        pytestmark = pytest.mark.start_methods("forkserver")

        @pytest.fixture(scope="module")
        def parents():
            return []

        @pytest.mark.parametrize("number", range(6))
        def test_as_the_first(mp_context, parents, number):
            parents += {helper.ask(mp_context, helper.parent) for _ in range(2)}
            assert len(set(parents)) == 1

        def test_otherwise(mp_context, parents, monkeypatch):
            monkeypatch.setenv("MINE", "yes")
            assert helper.ask(mp_context, helper.parent) not in parents

        def test_as_the_first_again(mp_context, parents):
            assert helper.ask(mp_context, helper.parent) in parents
    """)
    pytester.runpytest_subprocess(timeout=60).assert_outcomes(passed=8)


def test_what_a_module_fixture_started_lasts_while_forkservers_come_and_go(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\nstart_method_scope = module")
    pytester.makepyfile(
        targets="""
        import os

        def exit_as_told(connection):
            os._exit(connection.recv())

        def worker(_):
            return os.getpid()
    """
    )
    pytester.makepyfile("""
        import os

        import helper
        import pytest
        import targets

        PARENTS = set()

        @pytest.fixture(scope="module")
        def process(mp_context):
            receiver, sender = mp_context.Pipe(duplex=False)
            process = mp_context.Process(target=targets.exit_as_told, args=(receiver,))
            process.start()
            yield process
            assert process.is_alive()
            sender.send(7)
            process.join()
            assert process.exitcode == 7

        @pytest.fixture(scope="module")
        def pool(mp_context):
            before = set(mp_context.active_children())
            with mp_context.Pool(2) as pool:
                workers = set(mp_context.active_children()) - before
                yield pool
                pool.close()
                pool.join()
            assert len(workers) == 2
            assert [worker.exitcode for worker in workers] == [0, 0]

        @pytest.fixture(scope="module")
        def workers(pool, mp_context, process):
            return {child.pid for child in mp_context.active_children()} - {process.pid}

        @pytest.mark.parametrize("value", list("abcdef"))
        def test_child(mp_context, process, pool, workers, monkeypatch, value):
            monkeypatch.setenv("MINE", value)
            assert helper.ask(mp_context, helper.variable, "MINE") == value
            parent = helper.ask(mp_context, helper.parent)
            if mp_context.get_start_method() == "forkserver":
                assert parent not in PARENTS
                PARENTS.add(parent)
            assert set(pool.map(targets.worker, range(20))) <= workers
            assert process.is_alive()
    """)
    # A pool has threads, and a fork beside threads warns.
    args = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    pytester.runpytest_subprocess(*args, timeout=60).assert_outcomes(passed=18)


@pytest.mark.parametrize("workers", [0, 2])
def test_nobody_waits_for_a_forgotten_grandchild(pytester: pytest.Pytester, workers: int) -> None:
    # execnet waits for whoever has a worker's pipes, and a fork's children have them.
    args = ["-n", f"{workers}", "--start-method=spawn,forkserver"] if workers else []
    # Else it would be ended with its test.
    args += ["-W", "ignore::pytest_startmethod.ChildProcessLeakWarning"]
    if workers:
        pytest.importorskip("xdist", reason="this run has no pytest-xdist")
    pytester.makepyfile(
        targets="""
        import os
        import signal

        def forget(connection):
            pid = os.fork()
            if pid == 0:
                os.setsid()
                connection.send(os.getpid())
                signal.pause()
    """,
    )
    pytester.makepyfile("""
        import helper
        import pytest
        import targets

        def test_forgets(mp_context, monkeypatch):
            monkeypatch.setenv("MINE", "yes")
            with open("grandchildren", "a") as file:
                print(helper.ask(mp_context, targets.forget), file=file)

        @pytest.mark.parametrize("value", ["a", "b", "c"])
        def test_goes_on(mp_context, monkeypatch, value):
            monkeypatch.setenv("MINE", value)
            assert helper.ask(mp_context, helper.variable, "MINE") == value
    """)
    try:
        result = pytester.runpytest_subprocess(*args, timeout=60)
        result.assert_outcomes(passed=4 * (2 if workers else 3))
    finally:
        lines = (pytester.path / "grandchildren").read_text(encoding="utf-8").split()
        for pid in map(int, lines):
            os.kill(pid, signal.SIGKILL)  # it is alive still: the run has ended without it
    assert len(lines) == (2 if workers else 3)


def test_a_forked_child_may_use_a_forkserver_after_tests_that_did(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        targets="""
        import multiprocessing

        import helper

        def starts_another(connection):
            context = multiprocessing.get_context("forkserver")
            connection.send(helper.ask(context, helper.variable, "MINE"))
    """,
    )
    pytester.makepyfile("""
        import helper
        import pytest
        import targets

        @pytest.mark.start_methods("forkserver")
        def test_before(mp_context):
            helper.ask(mp_context, helper.parent)

        @pytest.mark.start_methods("fork")
        def test_forked(mp_context, monkeypatch):
            monkeypatch.setenv("MINE", "yes")
            for _ in range(2):
                assert helper.ask(mp_context, targets.starts_another) == "yes"

        @pytest.mark.start_methods("forkserver")
        def test_after(mp_context):
            helper.ask(mp_context, helper.parent)
    """)
    result = pytester.runpytest_subprocess("-p", "no:randomly", timeout=60)
    assert result.parseoutcomes()["passed"] == 3


def test_a_test_that_waits_for_all_children_breaks_no_other_test(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import os
        import signal

        import helper
        import pytest

        pytestmark = pytest.mark.start_methods("forkserver")

        def test_waits(mp_context):
            server = helper.ask(mp_context, helper.parent)
            os.kill(server, signal.SIGKILL)
            assert os.waitpid(server, 0) == (server, signal.SIGKILL)
    """)
    result = pytester.runpytest_subprocess(timeout=60)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    assert result.errlines == []
