"""Finds out who starts a process: the line, and the pool, executor or manager that does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_startmethod.load_hooks import loaded_classes
from pytest_startmethod.processes.places import package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.pool import Pool
    from types import FrameType

    from pytest_startmethod.weak_map import WeakMap

POOL = ("multiprocessing.pool", "Pool")
EXECUTOR = ("concurrent.futures.process", "ProcessPoolExecutor")
MANAGER = ("multiprocessing.managers", "BaseManager")
"""The classes that start processes for those who use them."""

PROXY = ("multiprocessing.managers", "BaseProxy")
LOCK = ("multiprocessing.synchronize", "SemLock")


# The packages and modules whose frames don't say who starts a process.
PASSED_OVER = ("multiprocessing", "concurrent", "threading", "pytest_startmethod")


NO_LINE = "the pool's own thread"


def line(frame: FrameType | None) -> str:
    """Return the innermost line that isn't the standard library's or the plugin's."""
    while frame is not None:
        if package(frame) not in PASSED_OVER:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return NO_LINE


def is_pool(maker: object) -> bool:
    """Tell whether it is a pool or an executor, which starts processes at times of its own."""
    return isinstance(maker, loaded_classes((POOL, EXECUTOR)))


def pools(made: WeakMap[Any]) -> Iterator[Pool]:
    """Return the pools that live, without executors, of what was `made`.

    Not those that were terminated. `Pool._state` is private, and such a word since Python 3.8;
    where it goes missing, none counts as terminated.
    """
    for maker in made.living():
        if isinstance(maker, loaded_classes([POOL])):
            pool: Any = maker
            if getattr(pool, "_state", "") != "TERMINATE":
                yield pool


def origin(frame: FrameType | None, made: WeakMap[Any]) -> tuple[str, object | None]:
    """Return the line that starts a process, and what was `made` whose code does it."""
    maker = None
    while frame is not None:
        if package(frame) not in PASSED_OVER:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}", maker
        if maker is None:
            maker = _maker(frame, made)
        frame = frame.f_back
    return NO_LINE, maker


def _maker(frame: FrameType, made: WeakMap[Any]) -> object | None:
    """Return the pool, executor or manager whose method a frame runs."""
    this = frame.f_locals.get("self")
    if isinstance(this, loaded_classes((POOL, EXECUTOR, MANAGER))):
        maker: object = this
        return maker
    # A pool's own thread knows its list of workers alone, as `pool`, and not the Pool itself: it
    # would live for ever. Where a Python version names them otherwise the test owns the worker.
    workers = frame.f_locals.get("pool")
    if not isinstance(workers, list):
        return None
    return next((pool for pool in pools(made) if getattr(pool, "_pool", ()) is workers), None)


def context(maker: object) -> object:
    """Return the context by which a pool, an executor or the manager of a proxy starts processes.

    Private: `Pool._ctx` and `BaseManager._ctx` since Python 3.4, `BaseProxy._manager` since 2.6,
    `ProcessPoolExecutor._mp_context` since 3.7. Where they go missing the context is unknown: None.
    """
    maker = getattr(maker, "_manager", maker)
    return getattr(maker, "_mp_context", None) or getattr(maker, "_ctx", None)


def process_base(context: object) -> type | None:
    """Return the class whose ``start()`` starts a context's processes, if it is a class."""
    process = getattr(context, "Process", None)
    # Threads have no sentinel: multiprocessing.dummy offers them as processes.
    bases = process.__mro__ if isinstance(process, type) and hasattr(process, "sentinel") else ()
    return next((base for base in reversed(bases) if "start" in vars(base)), None)
