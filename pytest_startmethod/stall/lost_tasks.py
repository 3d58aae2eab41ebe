"""Ends the wait for tasks that a Pool lost with a worker, where no signal can end it.

A Pool doesn't know which worker has which task: where a worker dies, the result never comes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.pool import Pool


def fail_lost_tasks(pool: Pool, error: BaseException) -> int:
    """Let each task of a Pool that has no result yet end with an error; return how many.

    The error is raised in each thread that waits for one, and ``Pool.join()`` returns. The Pool
    drops a result that comes later. No callback is called: it would run in this thread.

    Call it when a worker has died and no result has come for so long that none is expected. What
    it needs is private, and the same from Python 3.8 to 3.15; where it goes missing, 0 is returned.
    """
    from multiprocessing.pool import ApplyResult, IMapIterator  # loaded, as there is a Pool

    results: dict[int, Any] = getattr(pool, "_cache", {})
    failed = 0
    for job in tuple(results):
        result = results.get(job)
        if isinstance(result, (ApplyResult, IMapIterator)):
            # A result that came just now has gone from the Pool's record.
            with suppress(KeyError, AttributeError):
                _fail(result, error)
                failed += 1
    return failed


def _fail(result: Any, error: BaseException) -> None:  # noqa: ANN401 (its members are private)
    from multiprocessing.pool import IMapIterator, MapResult  # as above

    kind = type(result)
    if issubclass(kind, IMapIterator):  # whose next item is asked for first
        result._set(result._index, (False, error))  # noqa: SLF001 (see above)
        if result._length is not None:  # noqa: SLF001 (see above)
            # No tasks are to be sent: the iteration ends here, and the Pool forgets it.
            result._set_length(result._index)  # noqa: SLF001 (see above)
        return
    result._callback = result._error_callback = None  # noqa: SLF001 (see above)
    if issubclass(kind, MapResult):  # which counts the chunks that are missing
        result._number_left = 1  # noqa: SLF001 (see above)
    result._set(0, (False, error))  # noqa: SLF001 (see above)
