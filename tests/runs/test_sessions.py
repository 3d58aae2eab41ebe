"""A test that asks for no start method reruns in a session for each further one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Runs = Callable[[pytest.RunResult], list[str]]

ALL = "--start-method=fork,spawn,forkserver"
BOTH = "--start-method=fork,spawn"


def named(test: str, method: str) -> str:
    """Return the name of a run: ``test_x[spawn]``, ``test_y[1-spawn]``."""
    return test.format(f"-{method}" if "[" in test else f"[{method}]")


@pytest.mark.usefixtures("child_module")
def test_only_tests_that_depend_on_the_default_rerun_and_really_under_each_method(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs, notes: Callable[[], list[str]]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest
        from notes import note

        def test_quiet():
            note("quiet")

        def test_process():
            note(f"process {child.by_process()}")

        @pytest.mark.parametrize("ask", [child.by_pool, child.by_executor], ids=["pool", "x"])
        def test_each(ask):
            note(f"each {ask()}")

        @pytest.mark.parametrize("name", ["spawn"])
        def test_explicit(name):
            note(f"explicit {child.by_process(multiprocessing.get_context(name))}")

        def test_fixture(mp_context):
            note(f"fixture {child.by_process(mp_context)}")

        def test_asks():
            note(f"asks {multiprocessing.get_start_method()}")

        def test_skips():
            child.by_process()
            pytest.skip()

        @pytest.mark.xfail(reason="planted", strict=True)
        def test_expected():
            child.by_process()
            raise AssertionError

        def test_fails_first():
            child.by_process()
            assert multiprocessing.get_start_method() != "fork"
    """)
    # The explicit context is a mismatch elsewhere.
    result = run_watched("-v", ALL, "-W", "ignore::pytest_startmethod.StartMethodMismatchWarning")
    concerned = [
        *("test_process{} PASSED", "test_each[pool{}] PASSED", "test_each[x{}] PASSED"),
        *("test_asks{} PASSED", "test_skips{} SKIPPED", "test_expected{} XFAIL"),
        "test_fails_first{} PASSED",
    ]
    assert runs(result) == [
        "test_quiet PASSED",
        *("test_process PASSED", "test_each[pool] PASSED", "test_each[x] PASSED"),
        "test_explicit[spawn] PASSED",
        *(f"test_fixture[{method}] PASSED" for method in ("fork", "spawn", "forkserver")),
        *("test_asks PASSED", "test_skips SKIPPED", "test_expected XFAIL"),
        "test_fails_first FAILED",
        *(named(test, method) for method in ("spawn", "forkserver") for test in concerned),
    ]
    result.assert_outcomes(passed=19, skipped=3, xfailed=3, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    begun = [line for line in result.outlines if line.startswith("under ")]
    assert begun == ["under spawn", "under forkserver"]
    assert "[100%]" in [line for line in result.outlines if "::" in line and "%]" in line][-1]
    by_each = ("fork", "spawn", "forkserver")
    assert notes() == [
        *("quiet", "process fork", "each fork", "each fork", "explicit spawn"),
        *(f"fixture {method}" for method in by_each),
        "asks fork",
        *("process spawn", "each spawn", "each spawn", "asks spawn"),
        *("process forkserver", "each forkserver", "each forkserver", "asks forkserver"),
    ]
    assert not [line for line in result.outlines if "used no process" in line]


@pytest.mark.usefixtures("child_module")
def test_a_session_makes_decides_and_keeps_at_import_by_its_own_start_method(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        import pytest

        AT_IMPORT = multiprocessing.get_context().get_start_method()

        @pytest.fixture
        def at_import():
            return AT_IMPORT

        @pytest.fixture(scope="session")
        def pool():
            with multiprocessing.Pool(1) as pool:
                yield pool
    """)
    pytester.makepyfile("""
        import multiprocessing
        import unittest

        import child
        import pytest

        CONTEXT = multiprocessing.get_context()
        LOCK = multiprocessing.Lock()
        METHOD = multiprocessing.get_start_method()
        made = []

        def take(lock):
            with lock:
                pass

        def test_context(at_import):
            assert child.by_process(CONTEXT) == METHOD == at_import

        def test_lock():
            process = multiprocessing.Process(target=take, args=[LOCK])
            process.start()
            process.join()
            assert process.exitcode == 0

        @pytest.mark.skipif(METHOD != "fork", reason="planted")
        def test_skipped():
            child.by_process()

        def test_cannot_run_twice():
            child.by_process()
            made.append(1)
            assert len(made) == 1

        def test_pool_of_the_session(pool):
            assert pool.apply(child.method) == METHOD

        class TestCase(unittest.TestCase):
            seen = []

            @classmethod
            def setUpClass(cls):
                cls.seen.append(METHOD)

            def test_class(self):
                self.assertEqual([child.by_process()], self.seen)
    """)
    # Beside the threads of pools Python warns of a fork.
    result = run_watched(ALL, "-W", "error", "-W", "ignore:This process:DeprecationWarning")
    result.assert_outcomes(passed=16, skipped=2)
    table = [line.split()[:3] for line in result.outlines if line.startswith(("fork", "spawn"))]
    assert table == [["fork", "6", "6"], ["spawn", "5", "1"], ["forkserver", "5", "1"]]
    assert "depends on the start method" not in result.stdout.str()
    assert "used no process" not in result.stdout.str()


@pytest.mark.usefixtures("child_module")
def test_doctests_and_unittests_rerun(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs
) -> None:
    pytester.makepyfile(
        counted='''
            """A module.

            >>> import child, multiprocessing
            >>> child.by_process() == multiprocessing.get_start_method()
            True
            """
        ''',
        test_case="""
            import unittest

            import child

            class TestCase(unittest.TestCase):
                def test_1(self):
                    self.assertTrue(child.by_process())

                def test_2_skips(self):
                    child.by_process()
                    self.skipTest("no")

                def test_3_quiet(self):
                    pass

                def test_4_subtests(self):
                    for number in range(2):
                        with self.subTest(number=number):
                            self.assertTrue(child.by_process())
        """,
    )
    result = run_watched("-v", BOTH, "--doctest-modules", "counted.py", "test_case.py")
    assert [run for run in runs(result) if "SUB" not in run] == [
        *("counted PASSED", "TestCase::test_1 PASSED", "TestCase::test_2_skips SKIPPED"),
        *("TestCase::test_3_quiet PASSED", "TestCase::test_4_subtests PASSED"),
        *("counted[spawn] PASSED", "TestCase::test_1[spawn] PASSED"),
        *("TestCase::test_2_skips[spawn] SKIPPED", "TestCase::test_4_subtests[spawn] PASSED"),
    ]


@pytest.mark.usefixtures("child_module")
def test_a_session_starts_as_pytest_was_started_and_not_as_tests_left_it(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run_watched: Run,
) -> None:
    monkeypatch.setenv("GIVEN", "as given")
    pytester.mkdir("elsewhere")
    pytester.makepyfile("""
        import os
        import sys
        from pathlib import Path

        import child

        def test_leaves_much(record_property):
            assert os.environ["GIVEN"] == "as given"
            assert "left" not in sys.path
            assert sys.argv[1:] == FOUND
            assert Path.cwd().name != "elsewhere"
            record_property("own", child.by_process())
            os.environ["GIVEN"] = "changed"
            sys.path.insert(0, "left")
            sys.argv[:] = []
            os.chdir("elsewhere")

        FOUND = list(sys.argv[1:])
    """)
    result = run_watched(BOTH, "--junitxml=junit.xml", "-o", "junit_family=xunit1", "--", ".")
    result.assert_outcomes(passed=2)
    text = Path(pytester.path, "junit.xml").read_text(encoding="utf-8")
    assert text.count('<property name="own"') == 2


def test_no_session_starts_if_no_test_is_concerned(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makeconftest("open('imported.txt', 'a').write('x')")
    pytester.makepyfile("def test_quiet(): pass")
    run_watched(ALL).assert_outcomes(passed=1)
    assert Path(pytester.path, "imported.txt").read_text(encoding="utf-8") == "x"


@pytest.mark.usefixtures("child_module")
def test_the_report_of_a_session_shows_what_that_run_printed(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child

        def test_it():
            child.by_process()
            method = multiprocessing.get_start_method()
            print(f"printed under {method}")
            assert method == "fork"
    """)
    result = run_watched(BOTH)
    result.assert_outcomes(passed=1, failed=1)
    assert result.outlines.count("printed under spawn") == 1
    assert "printed under fork" not in result.outlines
    shown = run_watched(BOTH, "-s", "--tb=no")  # and no line twice
    assert len([line for line in shown.outlines if "printed under" in line]) == 2
    assert len([line for line in shown.outlines if "rootdir: " in line]) == 1


@pytest.mark.usefixtures("child_module")
def test_warnings_of_the_import_are_shown_once(pytester: pytest.Pytester, run_watched: Run) -> None:
    pytester.makepyfile("""
        import warnings

        import child

        warnings.warn("at import")

        def test_it():
            child.by_process()
            warnings.warn("in a test")
    """)
    result = run_watched(ALL)
    result.assert_outcomes(passed=3, warnings=4)


@pytest.mark.usefixtures("child_module")
def test_a_test_that_a_session_does_not_collect_is_listed_and_no_failure(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child

        if multiprocessing.get_start_method() == "fork":
            def test_of_fork():
                child.by_process()

        def test_of_all():
            child.by_process()
    """)
    result = run_watched("-v", BOTH)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=3)
    place = result.outlines.index("not run under spawn: not collected there (1 run)")
    assert result.outlines[place + 1].endswith("::test_of_fork")
    assert "[100%]" in [line for line in result.outlines if "::" in line and "%]" in line][-1]


@pytest.mark.usefixtures("child_module")
def test_a_file_that_fails_or_is_skipped_under_one_start_method_leaves_others_running(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    test = "\n\nimport child\n\ndef test_it():\n    child.by_process()\n"
    asks = "import multiprocessing, pytest\nmethod = multiprocessing.get_start_method()\n"
    pytester.makepyfile(
        test_bad=f"{asks}assert method != 'spawn', 'planted'{test}",
        test_no=f"{asks}if method == 'spawn': pytest.skip('no', allow_module_level=True){test}",
        test_good=test,
    )
    result = run_watched("-v", BOTH)
    result.assert_outcomes(passed=4, skipped=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert any("ERROR collecting test_bad.py[spawn]" in line for line in result.outlines)
    assert "test_bad.py::test_it    passed: fork    failed: spawn" in result.outlines
    assert "    AssertionError: planted" in result.outlines
    remembered = Path(pytester.path, ".pytest_cache/v/cache/lastfailed").read_text("utf-8")
    assert remembered == '{\n  "test_bad.py": true\n}'


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize(
    "args",
    [
        ("--pyargs", "package"),
        ("package/test_in.py::test_it", "test_out.py"),
        ("--rootdir=package", "package/test_in.py"),
        ("--import-mode=importlib", "package"),
        ("-k", "test_it", "--deselect=test_out.py"),
        ("-p", "no:cacheprovider", "-p", "no:terminal", "package"),
        ("--basetemp=base", "package"),
        ("--log-file=log.txt", "package"),
    ],
    ids=lambda args: " ".join(args),
)
def test_a_session_collects_the_test_with_any_arguments(
    pytester: pytest.Pytester, run_watched: Run, args: tuple[str, ...]
) -> None:
    package = pytester.mkpydir("package")
    text = "import child\n\ndef test_it(tmp_path):\n    child.by_process()\n"
    (package / "test_in.py").write_text(text, encoding="utf-8")
    pytester.makepyfile(test_out="def test_quiet(): pass")
    result = run_watched(BOTH, "--start-method-report=report.md", *args)
    assert result.ret == pytest.ExitCode.OK
    text = Path(pytester.path, "report.md").read_text(encoding="utf-8")
    assert "| fork | 1 |" in text
    assert "| spawn | 1 |" in text


@pytest.mark.needs("fork")
def test_a_test_that_runs_in_another_process_reruns(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    # As pytest-forked does.
    pytester.makeconftest("""
        import multiprocessing
        import os

        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            receiver, sender = multiprocessing.Pipe()
            pid = os.fork()
            if not pid:
                run(item, sender)
                os._exit(0)
            hook, config = item.config.hook, item.config
            for data in receiver.recv():
                report = hook.pytest_report_from_serializable(config=config, data=data)
                item.ihook.pytest_runtest_logreport(report=report)
            os.waitpid(pid, 0)
            item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            return True

        def run(item, sender):
            made, config = [], item.config
            for when in ("setup", "call", "teardown"):
                hook = getattr(item.ihook, f"pytest_runtest_{when}")
                extra = {"nextitem": None} if when == "teardown" else {}
                call = pytest.CallInfo.from_call(lambda: hook(item=item, **extra), when)
                report = item.ihook.pytest_runtest_makereport(item=item, call=call)
                made.append(config.hook.pytest_report_to_serializable(config=config, report=report))
            sender.send(made)
    """)
    pytester.makepyfile("""
        import multiprocessing

        def test_it():
            process = multiprocessing.Process(target=lambda: None)
            process.start()
            process.join()
            assert process.exitcode == 0
    """)
    result = run_watched("--start-method=fork,spawn")
    result.assert_outcomes(passed=1, failed=1)
    assert any(line.endswith("passed: fork    failed: spawn") for line in result.outlines)
