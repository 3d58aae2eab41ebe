"""What exit codes mean, on POSIX and on Windows: by plain calls, as no machine ends by them all."""

from __future__ import annotations

import signal

import pytest

from pytest_startmethod.processes.exit_codes import describe, is_fault


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (255, "exit code 255"),
        (-signal.SIGTERM, "SIGTERM"),  # of terminate(), on Windows too
        (-99, "exit code -99"),
        (0xC0000005, "exit code 0xC0000005 (access violation)"),
        (0xC00000FD, "exit code 0xC00000FD (stack overflow)"),
        (0xC0000409, "exit code 0xC0000409 (fail-fast)"),
        (0xC000013A, "exit code 0xC000013A (Ctrl-C)"),
        (0xE06D7363, "exit code 0xE06D7363 (C++ exception)"),
        (0xC0000123, "exit code 0xC0000123"),
        (0x80000003, "exit code 0x80000003 (breakpoint)"),
        (0x10000, "exit code 65536"),
        (0xFFFFFFFF, "exit code 4294967295"),  # sys.exit(-1) on Windows, as process.exitcode has it
    ],
)
def test_an_exit_code_is_shown_as_its_platform_writes_it(code: int, text: str) -> None:
    assert describe(code) == text


@pytest.mark.parametrize("code", [-signal.SIGSEGV, -signal.SIGABRT, 0xC0000005, 0xC0000409])
def test_what_the_system_ends_is_a_fault(code: int) -> None:
    assert is_fault(code)


@pytest.mark.parametrize(
    "code", [0, 1, 3, 255, -signal.SIGTERM, 0x10000, 0x80000003, 0xC000013A, 0xFFFFFFFF]
)
def test_what_a_process_or_its_parent_or_ctrl_c_ends_is_none(code: int) -> None:
    assert not is_fault(code)
