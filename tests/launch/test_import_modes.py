"""Under every import mode a child finds its target."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import sysconfig
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

METHODS = multiprocessing.get_all_start_methods()
MODES = ("prepend", "append", "importlib")

ASK = """
import sys

def ask(context, target):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(sender,))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    assert process.exitcode == 0
    return answer
"""

TARGET = """
def target(connection):
    connection.send({!r})
"""

CONFTEST = """
import pytest

{target}

@pytest.fixture
def from_conftest():
    return target
"""

SUITE = """
{ask}
{target}
{imports}
PATH = list(sys.path)

def test_module(mp_context):
    assert ask(mp_context, target) == "module"

def test_helper(mp_context):
    assert ask(mp_context, helper.target) == "helper"

def test_conftest(mp_context, from_conftest):
    assert ask(mp_context, from_conftest) == "conftest"

def test_path(mp_context):
    ask(mp_context, target)
    assert sys.path == PATH
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Run pytest as its script, which doesn't put the working directory into sys.path."""
    script = shutil.which("pytest", path=sysconfig.get_path("scripts"))
    if script is not None:
        return lambda *args: pytester.run(script, *args, timeout=60)
    # Installed without its scripts, as by pip's --target: this is what that of pytest would hold.
    [entry] = metadata.entry_points(group="console_scripts", name="pytest")
    source = f"import sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
    written = pytester.mkdir("bin") / "script.py"
    written.write_text(source, encoding="utf-8")
    return lambda *args: pytester.run(sys.executable, written, *args, timeout=60)


def write(pytester: pytest.Pytester, **sources: str) -> None:
    """Write files by their paths, less the suffix."""
    for name, source in sources.items():
        path = pytester.path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")


def suite(imports: str) -> dict[str, str]:
    """Return a suite in a folder, with a target in the test module, a helper and a conftest."""
    return {
        "tests/conftest": CONFTEST.format(target=TARGET.format("conftest")),
        "tests/helper": TARGET.format("helper"),
        "tests/test_it": SUITE.format(ask=ASK, target=TARGET.format("module"), imports=imports),
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["folder", "package"])
def test_a_target_is_found_in_the_test_module_and_a_helper_and_a_conftest(
    pytester: pytest.Pytester, run: Run, mode: str, kind: str
) -> None:
    pytester.makeini("[pytest]\npythonpath = tests" if mode == "importlib" else "[pytest]")
    relative = kind == "package" and mode != "importlib"
    write(pytester, **suite("from . import helper" if relative else "import helper"))
    if kind == "package":
        write(pytester, **{"tests/__init__": ""})
    run(f"--import-mode={mode}").assert_outcomes(passed=4 * len(METHODS))


@pytest.mark.parametrize("mode", MODES)
def test_a_target_is_found_where_the_root_is_not_the_working_directory(
    pytester: pytest.Pytester, run: Run, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\npythonpath = tests" if mode == "importlib" else "[pytest]")
    write(pytester, **suite("import helper"))
    monkeypatch.chdir(pytester.mkdir("elsewhere"))
    result = run(f"--import-mode={mode}", f"--rootdir={pytester.path}", "../tests")
    result.assert_outcomes(passed=4 * len(METHODS))
    assert f"rootdir: {pytester.path}" in result.outlines


@pytest.mark.parametrize("mode", MODES)
def test_a_target_is_found_in_a_src_layout(pytester: pytest.Pytester, run: Run, mode: str) -> None:
    pytester.makeini("[pytest]\npythonpath = src")
    write(
        pytester,
        **{
            "src/package/__init__": "",
            "src/package/work": TARGET.format("work"),
            "tests/test_it": ASK
            + """
from package import work

def test_package(mp_context):
    assert ask(mp_context, work.target) == "work"
""",
        },
    )
    run(f"--import-mode={mode}").assert_outcomes(passed=len(METHODS))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [*((mode, "packages") for mode in MODES), ("importlib", "folders")],
)
def test_a_target_is_found_in_two_test_files_of_one_name(
    pytester: pytest.Pytester, run: Run, mode: str, kind: str
) -> None:
    for name in ("one", "two"):
        folder = f"tests/{name}"
        test = f'def test_it(mp_context):\n    assert ask(mp_context, target) == "{name}"\n'
        write(pytester, **{f"{folder}/test_it": ASK + TARGET.format(name) + test})
        if kind == "packages":
            write(pytester, **{"tests/__init__": "", f"{folder}/__init__": ""})
    run(f"--import-mode={mode}").assert_outcomes(passed=2 * len(METHODS))


@pytest.mark.parametrize("mode", ["importlib", "prepend"])
@pytest.mark.parametrize("folder", ["json", "v1.0", "v1.0/deep/er"])
def test_a_target_is_found_in_a_folder_named_like_a_standard_module_or_by_no_valid_name(
    pytester: pytest.Pytester, run: Run, folder: str, mode: str
) -> None:
    test = 'def test_it(mp_context):\n    assert ask(mp_context, target) == "it"\n'
    write(pytester, **{f"{folder}/test_it": ASK + TARGET.format("it") + test})
    run(f"--import-mode={mode}").assert_outcomes(passed=len(METHODS))


@pytest.mark.parametrize("kind", ["folder", "package"])
def test_a_target_is_found_even_if_another_project_has_a_package_of_that_name(
    pytester: pytest.Pytester, run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {f"other/{name}": "" for name in ("tests/conftest", "tests/test_it", "tests/helper")}
    write(pytester, **other, **suite("import helper"))
    write(pytester, **({"other/tests/__init__": ""} if kind == "package" else {}))
    pytester.makeini("[pytest]\npythonpath = tests\ntestpaths = tests")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "other"))
    run("--import-mode=importlib").assert_outcomes(passed=4 * len(METHODS))


@pytest.mark.posix("a pipe that a child died before unpickling stays open there, and never ends")
def test_a_target_in_a_module_that_the_test_itself_made_is_not_found_and_the_failure_says_so(
    pytester: pytest.Pytester, run: Run
) -> None:
    write(
        pytester,
        test_it=ASK
        + f"""
import types

made = types.ModuleType("made")
exec({TARGET.format("made")!r}, vars(made))
sys.modules["made"] = made

def test_made(mp_context):
    assert ask(mp_context, made.target) == "made"
""",
    )
    result = run()
    fresh = len(METHODS) - METHODS.count("fork")
    result.assert_outcomes(passed=len(METHODS) - fresh, failed=fresh)
    assert result.outlines.count("ModuleNotFoundError: No module named 'made'") == fresh
    result.stdout.fnmatch_lines(["hint: a child finds its target by importing the module *"])
