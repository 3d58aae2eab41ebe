"""What a run doesn't use isn't imported, and is watched once a test imports it."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.guard import Guard
from pytest_startmethod.load_hooks import LoadHooks, loaded, loaded_classes

if TYPE_CHECKING:
    from types import ModuleType

METHODS = ("fork", "spawn", "forkserver")

if sys.platform == "win32":
    METHODS = ("spawn",)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_a_test_and_its_fork_find_no_module_that_they_wouldnt_find_without_the_plugin(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import json
        import multiprocessing
        import sys

        import pytest

        def modules(which):
            with open(f"{which}.json", "w") as file:
                json.dump([n for n in sys.modules if "startmethod" not in n], file)

        @pytest.mark.parametrize("method", ["fork"])
        def test_it(method):
            modules("test")
            process = multiprocessing.get_context(method).Process(target=modules, args=["child"])
            process.start()
            process.join()
            assert process.exitcode == 0
    """)
    found = []
    for args in (["-p", "no:startmethod"], ["-p", "startmethod", "--start-method=fork"]):
        pytester.runpytest_subprocess(*args).assert_outcomes(passed=1)
        files = (pytester.path / f"{which}.json" for which in ("test", "child"))
        found.append([set(json.loads(file.read_text())) for file in files])
    (test, child), (watched_test, watched_child) = found
    assert watched_test - test <= {"resource"}
    assert watched_child - child <= {"resource"}


@pytest.mark.posix("Windows has no resource tracker")
def test_a_module_that_is_loaded_twice_is_watched_twice_and_each_is_its_own(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import importlib
        import sys

        NAME = "multiprocessing.resource_tracker"

        def test_it(mp_context):
            assert NAME not in sys.modules
            first = importlib.import_module(NAME)
            del sys.modules[NAME]
            second = importlib.import_module(NAME)
            assert first is not second
            first.register("/mp-none", "semaphore")
            first.unregister("/mp-none", "semaphore")
            assert first._resource_tracker._fd is not None
            assert second._resource_tracker._fd is None
    """)
    args = ("-p", "startmethod", "--start-method=fork")
    pytester.runpytest_subprocess(*args).assert_outcomes(passed=1)


MAKERS = {
    "concurrent.futures.process": """
        from concurrent.futures import ProcessPoolExecutor

        made = ProcessPoolExecutor(1, mp_context=mp_context)
        made.submit(int).result()
    """,
    "multiprocessing.pool": """
        made = mp_context.Pool(1)
        made.apply(int)
    """,
    "multiprocessing.managers": """
        made = mp_context.Manager()
        made.list()
    """,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("module", MAKERS)
def test_what_is_first_imported_by_a_fixture_is_owned_by_that(
    pytester: pytest.Pytester, module: str, method: str
) -> None:
    pytester.makepyfile(f"""
        import sys

        import pytest

        kept = []

        @pytest.fixture
        def maker(mp_context):
            assert {module!r} not in sys.modules
            {MAKERS[module].replace(chr(10), chr(10) + "    ")}
            loader = type(__import__("ast").__loader__)
            assert type(sys.modules[{module!r}].__loader__) is loader
            assert type(sys.modules[{module!r}].__spec__.loader) is loader
            kept.append(made)

        def test_it(maker):
            pass
    """)
    result = pytester.runpytest_subprocess("-p", "startmethod", f"--start-method={method}")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.re_match_lines([r".*ChildProcessLeakWarning: .*the fixture 'maker'.*"])


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> LoadHooks:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    made = LoadHooks(Guard())
    made.install()
    return made


def test_a_function_is_called_when_its_module_is_loaded_and_loaded_again(hooks: LoadHooks) -> None:
    seen: list[str] = []
    hooks.add("colorsys", lambda module: seen.append(module.__name__))
    assert loaded("colorsys", "rgb_to_hls") is None
    assert loaded_classes([("colorsys", "rgb_to_hls"), ("guard", "Guard")]) == ()
    module = importlib.import_module("colorsys")
    assert seen == ["colorsys"]
    assert loaded("colorsys", "rgb_to_hls") is module.rgb_to_hls
    importlib.reload(module)
    assert seen == ["colorsys"] * 2
    hooks.add("colorsys", lambda _: seen.append("at once"))
    assert seen[2:] == ["at once"]


def test_no_error_reaches_the_import_and_a_removed_function_isnt_called() -> None:
    guard = Guard()
    hooks = LoadHooks(guard)
    before = list(sys.meta_path)
    hooks.install()

    def fail(_: ModuleType) -> None:
        raise RuntimeError("of the plugin")

    def never(_: ModuleType) -> None:
        raise AssertionError

    sys.modules.pop("colorsys", None)
    hooks.add("colorsys", fail)
    hooks.add("colorsys", never)
    hooks.remove("colorsys", never)
    try:
        assert importlib.import_module("colorsys").rgb_to_hls
    finally:
        hooks.uninstall()
    assert "RuntimeError: of the plugin" in guard.error
    assert sys.meta_path == before


def test_a_finder_of_the_suites_may_refuse_the_import(
    hooks: LoadHooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            raise ImportError(f"no {name} here")

    hooks.add("colorsys", lambda _: None)
    monkeypatch.setattr(sys, "meta_path", [hooks, Refuses, *sys.meta_path[1:]])
    with pytest.raises(ImportError, match="no colorsys here"):
        importlib.import_module("colorsys")
    assert not hooks.guard.error


def test_a_spec_has_all_that_the_modules_own_loader_has(hooks: LoadHooks) -> None:
    hooks.add("colorsys", lambda _: None)
    spec = importlib.util.find_spec("colorsys")
    assert spec is not None
    assert spec.loader is not None
    assert "def rgb_to_hls" in spec.loader.get_source("colorsys")  # type: ignore[attr-defined]


def test_a_finder_that_somebody_has_taken_out_finds_nothing_by_itself(hooks: LoadHooks) -> None:
    hooks.add("colorsys", lambda _: None)
    hooks.uninstall()
    assert hooks.find_spec("colorsys") is None
