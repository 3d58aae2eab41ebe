"""A suite of difficult cases ends as under plain pytest, and as under one start method alone."""

from __future__ import annotations

import json
import multiprocessing
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

METHODS = multiprocessing.get_all_start_methods()
FIRST, *FURTHER = sorted(METHODS, key=["fork", "spawn", "forkserver"].index)

pytestmark = pytest.mark.needs("fork", "spawn", "forkserver")

CONFTEST = """
    import multiprocessing
    import os
    from concurrent.futures import ProcessPoolExecutor

    import pytest

    if "PLAIN" in os.environ:  # plain pytest, with a default
        multiprocessing.set_start_method(os.environ["PLAIN"])

    @pytest.fixture(scope="session")
    def shared():
        with ProcessPoolExecutor(1) as executor:
            yield executor
"""

APP = '''
    """Counts words, as libraries do it: what it needs is made at import, or once, and kept."""

    import multiprocessing
    import sys
    from concurrent.futures import ProcessPoolExecutor

    mp = multiprocessing.get_context()
    settings = {"verbose": False}
    kept = {}

    def count(text):
        """Count words.

        >>> with mp.Pool(1) as pool:
        ...     pool.map(count, ["one two", "three"])
        [2, 1]
        """
        return len(text.split())

    def executor():
        if "executor" not in kept:
            kept["executor"] = ProcessPoolExecutor(1)
        return kept["executor"]

    def lock():
        if "lock" not in kept:
            kept["lock"] = multiprocessing.Lock()
        return kept["lock"]

    def is_verbose(_=None):
        return settings["verbose"]

    def hold(lock):
        with lock:
            sys.exit(3)

    def fail():
        sys.exit(1)

    def run(target, *args, context=mp):
        process = context.Process(target=target, args=args)
        process.start()
        process.join()
        return process.exitcode
'''

TESTS = """
    import multiprocessing
    import unittest

    import app
    import pytest

    done = []

    def test_context_of_the_module():
        with app.mp.Pool(1) as pool:
            assert pool.map(app.count, ["a b"]) == [2]

    def test_kept_executor():
        assert app.executor().submit(app.count, "a b").result() == 2

    def test_kept_executor_once_more():
        assert app.executor().submit(app.count, "a").result() == 1

    def test_lock_made_at_first_use():
        assert app.run(app.hold, app.lock(), context=multiprocessing) == 3

    def test_lock_made_before():
        assert app.run(app.hold, app.lock(), context=multiprocessing) == 3

    @pytest.mark.parametrize("text", ["a", "a [b]"])
    def test_executor_of_the_session(shared, text):
        assert shared.submit(app.count, text).result() == len(text.split())

    def test_child_that_is_to_exit_by_1():
        assert app.run(app.fail) == 1

    def test_cannot_run_twice():
        done.append(app.run(app.count, "a"))
        assert done == [0]

    @pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="inherits memory")
    def test_skipped_at_import(monkeypatch):
        monkeypatch.setitem(app.settings, "verbose", True)
        with multiprocessing.Pool(1) as pool:
            assert pool.apply(app.is_verbose)

    def test_inherits_memory(monkeypatch):
        monkeypatch.setitem(app.settings, "verbose", True)
        with multiprocessing.Pool(1) as pool:
            assert pool.apply(app.is_verbose)

    def test_local_target():
        def target():
            pass

        assert app.run(target) == 0

    @pytest.mark.xfail(reason="one word")
    def test_expected_to_fail():
        with app.mp.Pool(1) as pool:
            assert pool.map(app.count, ["a b"]) == [1]

    def test_fails():
        assert app.run(app.fail) == 0

    def test_starts_nothing():
        assert app.count("a b") == 2

    class CounterTest(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.pool = app.mp.Pool(1)
            cls.counts = []

        @classmethod
        def tearDownClass(cls):
            cls.pool.terminate()

        def test_a(self):
            self.counts.append(self.pool.apply(app.count, ["a b"]))
            self.assertEqual(self.counts, [2])

        def test_b(self):
            self.counts.append(self.pool.apply(app.count, ["a"]))
            self.assertEqual(self.counts, [2, 1])
"""

DIFFER = {
    "test_app.test_inherits_memory": {
        "fork": "passed",
        "spawn": "failure",
        "forkserver": "failure",
    },
    "test_app.test_local_target": {"fork": "passed", "spawn": "failure", "forkserver": "failure"},
}


@pytest.fixture
def outcomes(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, str]]:
    """Run the suite, plain by a default or under start methods, and return how each test ended."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(app=APP, test_app=TESTS)
    options = ["--doctest-modules", "--junitxml=outcomes.xml"]

    def run(*args: str, plain: str = "") -> dict[str, str]:
        if plain:
            with monkeypatch.context() as patch:
                patch.setenv("PLAIN", plain)
                pytester.runpytest_subprocess("-p", "no:startmethod", *options, timeout=60)
        else:
            result = run_watched(*options, *args)
            assert "pytest_startmethod." not in result.stdout.str()
            assert "ChildProcess" not in result.stdout.str()
        root = ET.parse(pytester.path / "outcomes.xml").getroot()
        return {_name(case): _outcome(case) for case in root.iter("testcase")}

    return run


def _name(case: ET.Element) -> str:
    return f"{case.get('classname')}.{case.get('name')}"


def _outcome(case: ET.Element) -> str:
    ends = {child.tag for child in case} & {"failure", "error", "skipped"}
    return ends.pop() if ends else "passed"


def _of_method(runs: dict[str, str], method: str) -> dict[str, str]:
    """Return the tests that were run again under a start method, by their plain names."""
    found = {}
    for name, outcome in runs.items():
        for end, plain_end in ((f"[{method}]", ""), (f"-{method}]", "]")):
            if name.endswith(end):
                found[name.removesuffix(end) + plain_end] = outcome
    return found


def _differing(alone: dict[str, dict[str, str]], tests: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tests that pass under one start method and fail under another."""
    found = {test: {method: alone[method][test] for method in METHODS} for test in tests}
    return {test: ends for test, ends in found.items() if {*ends.values()} >= {"passed", "failure"}}


def test_each_test_ends_as_plain_and_all_says_what_each_start_method_says_alone(
    pytester: pytest.Pytester, outcomes: Callable[..., dict[str, str]]
) -> None:
    alone = {method: outcomes(f"--start-method={method}") for method in METHODS}
    assert alone == {method: outcomes(plain=method) for method in METHODS}
    together = outcomes("--start-method=all", "--start-method-report=report.json")

    again = {method: _of_method(together, method) for method in FURTHER}
    first = {name: end for name, end in together.items() if name in alone[FIRST]}
    assert first == alone[FIRST]
    assert len(together) == len(first) + sum(map(len, again.values()))
    for method in FURTHER:
        assert again[method] == {name: alone[method][name] for name in again[method]}

    # Whoever isn't run again ends everywhere as in the first run.
    assert _differing(alone, alone[FIRST]) == DIFFER
    for name in {*first} - {*again["spawn"]}:
        assert {alone[method][name] for method in METHODS} == {first[name]}
    report = json.loads((pytester.path / "report.json").read_text(encoding="utf-8"))
    listed = {
        test["test"].replace(".py::", ".").replace("::", ".")
        for test in report["tests"]
        if {"passed", "failed"} <= {run["outcome"] for run in test["start_methods"].values()}
    }
    assert listed == {*DIFFER}
