"""Bytes and text are never compared: under ``python -bb`` that is an error."""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def test_a_suite_ends_the_same_where_bytes_warnings_are_errors(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from multiprocessing import shared_memory

        def test_pool(mp_context):
            with mp_context.Pool(1) as pool:
                assert pool.apply(abs, [-1]) == 1

        def test_manager(mp_context, monkeypatch):
            monkeypatch.setenv("NAME", "value")
            with mp_context.Manager() as manager:
                assert list(manager.list([1])) == [1]

        def test_memory(mp_context):
            memory = shared_memory.SharedMemory(create=True, size=1)
            process = mp_context.Process(target=abs, args=(1,))
            process.start()
            process.join()
            memory.close()
            memory.unlink()
            assert process.exitcode == 0
    """)
    result = pytester.run(sys.executable, "-bb", "-m", "pytest", "-p", "no:xdist")
    result.assert_outcomes(passed=3 * len(multiprocessing.get_all_start_methods()))
