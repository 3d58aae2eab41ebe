"""Loading the plugin and turning it off; its help."""

from __future__ import annotations

import pytest

SUITE = """
    import multiprocessing

    CONTEXT = multiprocessing.get_context()

    def test_context(mp_context):
        assert mp_context is multiprocessing.get_context("spawn") is CONTEXT

    def test_other():
        assert multiprocessing.get_start_method() == "spawn"
"""


@pytest.mark.parametrize("autoload", [True, False])
@pytest.mark.parametrize("in_addopts", [True, False])
def test_it_is_loaded_by_its_name_with_and_without_autoload(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, autoload: bool, in_addopts: bool
) -> None:
    if not autoload:
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    if in_addopts:
        pytester.makeini("[pytest]\naddopts = -p startmethod")
    pytester.makepyfile(SUITE)
    args = [] if in_addopts else ["-p", "startmethod"]
    result = pytester.runpytest_subprocess(*args, "--start-method=spawn")
    result.assert_outcomes(passed=2)
    assert len([line for line in result.outlines if line.startswith("start methods: ")]) == 1


def test_without_autoload_a_conftest_may_load_it_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest("pytest_plugins = ['pytest_startmethod.plugin']")
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess("--start-method=spawn").assert_outcomes(passed=2)


def test_installed_it_needs_no_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    pytester.makeini("[pytest]\nstart_methods = spawn")
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_it_is_turned_off_by_its_name(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_context(mp_context):
            pass
    """)
    result = pytester.runpytest_subprocess("-p", "no:startmethod")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E       fixture 'mp_context' not found"])
    result.stdout.no_fnmatch_line("*start methods:*")
    result = pytester.runpytest_subprocess("-p", "no:startmethod", "--start-method=spawn")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --start-method=spawn"])


# What pytest imports before it knows of the plugin's own finder.
BY_PYTEST = {
    "pytest_startmethod",
    *(f"pytest_startmethod.{name}" for name in ("warning_classes", "plugin")),
    *(f"pytest_startmethod.{name}" for name in ("hookspecs", "importer", "invocation")),
}


def test_python_and_not_pytest_imports_the_modules_of_the_plugin(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_it=f"""
            import sys

            def loaders(mine):
                modules = {{n: m for n, m in sys.modules.items() if n.startswith("pytest_startm")}}
                by_pytest = {{n for n, m in modules.items() if type(m.__loader__) is mine}}
                return by_pytest, set(modules)

            def test_it(mp_context):
                process = mp_context.Process(target=int)
                process.start()
                process.join()
                by_pytest, every = loaders(type(__loader__))
                assert by_pytest <= {BY_PYTEST!r}
                assert "pytest_startmethod.watch.watcher" in every
        """,
        run="""
            import sys

            import pytest

            if __name__ == "__main__":
                before = list(sys.meta_path)
                code = pytest.main(["-p", "startmethod", "--start-method=spawn", "test_it.py"])
                sys.exit(code or sys.meta_path != before)
        """,
    )
    result = pytester.runpython(pytester.path / "run.py")
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_no_finder_of_the_plugins_is_there_in_a_run_that_uses_none_of_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            with open("finders.txt", "a") as file:
                print(*(getattr(f, "__name__", type(f).__name__) for f in sys.meta_path), file=file)
    """)
    for args in (["-p", "no:startmethod"], ["-p", "startmethod"]):
        pytester.runpytest_subprocess(*args).assert_outcomes(passed=1)
    without, with_it = (pytester.path / "finders.txt").read_text(encoding="utf-8").splitlines()
    assert with_it == without


def words(result: pytest.RunResult) -> str:
    assert result.ret in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return " ".join(result.stdout.str().split())


def test_help_explains_the_option_and_the_ini_options_in_sentences(
    pytester: pytest.Pytester,
) -> None:
    text = words(pytester.runpytest_subprocess("--help"))
    option = text.partition("--start-method=METHOD[,METHOD...] ")[2]
    assert option.startswith("Run tests under these multiprocessing start methods: fork, spawn, ")
    assert "start_methods (linelist): Start methods to select if the command line has no" in text
    assert (
        "start_method_scope (string): Scope of the fixtures mp_context, start_method and "
        "default_start_method: function (the default), class, module or session."
    ) in text


def test_markers_and_fixtures_are_explained_in_sentences(pytester: pytest.Pytester) -> None:
    text = words(pytester.runpytest_subprocess("--markers"))
    assert (
        "@pytest.mark.start_methods(*names, reason=''): run the test only under these "
        "multiprocessing start methods (no names: all)."
    ) in text
    result = pytester.runpytest_subprocess("--fixtures")
    fixtures = result.stdout.str().partition("fixtures defined from pytest_startmethod")[2]
    shown = [line.partition(" ")[0] for line in fixtures.splitlines() if " -- " in line]
    assert {"start_method", "mp_context", "default_start_method"} <= set(shown)
    text = words(result)
    for sentence in (
        "Name of the multiprocessing start method that the test runs under",
        "Return the multiprocessing context of the test's start method.",
        "Make the test's start method the process-wide default while it runs",
    ):
        assert sentence in text
    assert "no docstring available" not in fixtures
