"""No temporary folder of multiprocessing is left, however the child ended that made it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children have one there alone"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()

HELPER = """
import multiprocessing
import os
import signal
from multiprocessing.connection import Listener
from pathlib import Path

def note(address):
    with Path("folders.txt").open("a") as file:
        file.write(os.path.dirname(address) + "\\n")

def listens(connection):
    with Listener(family="AF_UNIX") as listener:
        note(listener.address)
        connection.send("ready")
        signal.pause()

def has_a_forkserver(connection):
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=listens, args=[connection])
    process.start()
    process.join()

def start(context, target):
    ours, its = context.Pipe()
    process = context.Process(target=target, args=[its])
    process.start()
    ours.recv()
    return process
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a path that is short enough for sockets."""
    folder = Path(tempfile.mkdtemp())
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_folders_of_children_that_were_killed_are_removed(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult], temporary: Path
) -> None:
    pytester.makepyfile(
        test_it="""
        import multiprocessing
        import os

        import helper
        import pytest

        KEPT = []

        def test_killed_manager(mp_context):
            manager = mp_context.Manager()
            helper.note(manager.address)
            [process] = multiprocessing.active_children()
            process.kill()
            process.join()

        def test_left_manager(mp_context):
            KEPT.append(mp_context.Manager())
            helper.note(KEPT[-1].address)

        @pytest.mark.parametrize("target", [helper.listens, helper.has_a_forkserver])
        def test_killed_child(mp_context, target):
            process = helper.start(mp_context, target)
            process.kill()
            process.join()

        def test_left_child(mp_context):
            helper.start(mp_context, helper.listens)
        """
    )
    for method in METHODS:
        result = run_impatient(f"--start-method={method}")
        result.assert_outcomes(passed=5, warnings=3)
    folders = (pytester.path / "folders.txt").read_text(encoding="utf-8").split()
    assert len(folders) == 5 * len(METHODS)
    assert all(folder.startswith(f"{temporary}/pymp-") for folder in folders)
    assert list(temporary.iterdir()) == []


def test_a_suite_may_remove_them_all(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult], temporary: Path
) -> None:
    pytester.makepyfile(
        test_it=f"""
        import shutil
        from pathlib import Path

        import helper

        def test_it(mp_context):
            for folder in Path({str(temporary)!r}).glob("pymp-*"):
                shutil.rmtree(folder)
            with mp_context.Manager() as manager:
                helper.note(manager.address)
                assert list(manager.list([1])) == [1]
        """
    )
    for method in METHODS:
        result = run_impatient(f"--start-method={method}", "-W", "error")
        result.assert_outcomes(passed=1)
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("temporary")
def test_a_suite_may_choose_another_folder_for_temporary_files(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import tempfile

        def test_it(mp_context, monkeypatch):
            folder = tempfile.mkdtemp()
            monkeypatch.setenv("TMPDIR", folder)
            monkeypatch.setattr(tempfile, "tempdir", None)
            with mp_context.Manager() as manager:
                assert manager.address.startswith(folder)
        """
    )
    run_impatient("-W", "error").assert_outcomes(passed=len(METHODS))


@pytest.mark.usefixtures("temporary")
def test_a_test_may_be_the_first_that_asks_where_temporary_files_are(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
        import os
        import tempfile

        def test_it(mp_context, monkeypatch):
            assert tempfile.tempdir is None
            folder = f"{os.environ['TMPDIR']}/{mp_context.get_start_method()}"
            os.mkdir(folder)
            monkeypatch.setenv("TMPDIR", folder)
            with mp_context.Manager() as manager:
                assert manager.address.startswith(folder)
        """
    )
    for method in METHODS:  # with -s pytest itself has no temporary files
        run_impatient(f"--start-method={method}", "-s").assert_outcomes(passed=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_child_that_gives_up_its_rights_may_listen(
    pytester: pytest.Pytester, run_impatient: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        privileges="""
        import os
        from multiprocessing.connection import Listener

        def gives_up(connection):
            os.setgid(65534)
            os.setuid(65534)
            with Listener(family="AF_UNIX") as listener:
                connection.send(os.stat(listener.address).st_uid)
        """,
        test_it="""
        import privileges

        def test_it(mp_context):
            receiver, sender = mp_context.Pipe()
            process = mp_context.Process(target=privileges.gives_up, args=[sender])
            process.start()
            assert receiver.recv() == 65534
            process.join()
            assert process.exitcode == 0
        """,
    )
    run_impatient("-W", "error").assert_outcomes(passed=len(METHODS))
