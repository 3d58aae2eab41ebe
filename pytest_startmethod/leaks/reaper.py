"""Stops processes that outlive their test or fixture."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_startmethod.load_hooks import loaded_classes
from pytest_startmethod.processes.broken_starts import PATIENCE
from pytest_startmethod.processes.children import Child
from pytest_startmethod.processes.makers import EXECUTOR, POOL
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

T = TypeVar("T")

GRACE = 1.0
"""Seconds that a child may take to end by itself, and then again to obey a signal."""

SOON = 0.1
"""Seconds after which a pool that is alive may be one that only waits to be collected."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def stop(
    outlive: Callable[[], list[Child]], before: Callable[[list[Child]], object] = len
) -> list[Child]:
    """Stop the children whose owner has ended, and return those that didn't end by themselves.

    `outlive` returns the children whose owner has ended: a pool may start more of them. One that
    ends within `GRACE` seconds is no leak. The others get a SIGTERM, and a SIGKILL after as long
    again; when this returns, none of them is alive. `before` is called
    with those that are to be stopped.
    """
    alive = wait(outlive(), SOON, Child.has_ended)
    if any(child.maker is not None for child in alive):
        System.collect_garbage()  # a pool, executor or manager in a reference cycle ends with it
    leaked = wait(alive, GRACE, Child.has_ended)
    before(leaked)
    stop_makers(child.maker for child in leaked)
    # None can disobey the second, but on a busy machine it may take its time.
    for signum, seconds in ((signal.SIGTERM, GRACE), (KILL, PATIENCE)):
        if leaked:
            alive = [child for child in outlive() if not child.has_ended()]
            for child in alive:
                child.send(signum)
            wait(alive, seconds, Child.has_ended)
    return leaked


def stop_makers(makers: Iterable[object]) -> None:
    """Ask pools, executors and managers to end their children and to start no others."""
    for maker in {id(maker): maker for maker in makers if maker is not None}.values():
        # In a thread, as Pool.terminate() waits for ever where a killed worker holds the pool's
        # lock.
        thread = System.Thread(target=stop_maker, args=[maker], daemon=True)
        with suppress(RuntimeError):  # Python 3.12 starts none as it exits
            thread.start()
            thread.join(GRACE)


def stop_maker(maker: Any) -> None:  # noqa: ANN401 (a pool, an executor or a manager)
    """Ask a pool, an executor or a manager to end its children; this may never return."""
    executors, pools = loaded_classes([EXECUTOR]), loaded_classes([POOL])
    # As its own class does it, or else that of the standard library. One that is only half made
    # can't be stopped at all, and its children can.
    classes: tuple[Any, ...] = (type(maker), *executors, *pools)
    for cls in classes:
        with suppress(Exception):
            if isinstance(maker, executors):
                cls.shutdown(maker, wait=False, cancel_futures=True)
            elif isinstance(maker, pools):
                cls.terminate(maker)
            else:
                maker.shutdown()
            return


def settle(children: Collection[Child]) -> None:
    """Record the exit codes of children that have ended.

    The threads of pools and executors get `GRACE` seconds to ask for them.
    """
    for child in children:
        child.ask()
    deadline = System.monotonic() + GRACE
    while System.monotonic() < deadline and any(_is_awaited(child) for child in children):
        System.sleep(0.001)


def _is_awaited(child: Child) -> bool:
    """Tell whether a thread of a pool or an executor is about to get the exit code."""
    return child.exit_code is None and child.by_pool and child.popen is not None


def wait(some: Iterable[T], seconds: float, has_ended: Callable[[T], bool]) -> list[T]:
    """Wait until all have ended, so long at most, and return those that have not."""
    alive = [one for one in some if not has_ended(one)]
    deadline, pause = System.monotonic() + seconds, 0.001
    while alive and System.monotonic() < deadline:
        System.sleep(pause)
        pause = min(pause * 2, 0.02)
        alive = [one for one in alive if not has_ended(one)]
    return alive
