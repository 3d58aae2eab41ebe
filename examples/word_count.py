"""Count the words of Python's own standard library, its files shared out among processes.

Try it with ``python examples/word_count.py --start-method=spawn --executor``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sysconfig
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from multiprocessing.context import BaseContext

PROCESSES = 2
FILES_AT_ONCE = 8  # one message for each file would cost more than counting its words


def sources() -> list[Path]:
    """Return the modules at the top of the standard library, about 160 files."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def words(path: Path) -> Counter[str]:
    """Count the words of one file: this is what a process is given to do."""
    return Counter(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def total(counts: Iterable[Counter[str]]) -> Counter[str]:
    """Add up the counts of all files."""
    added = Counter[str]()
    for count in counts:
        added.update(count)
    return added


def count_with_pool(paths: Iterable[Path], context: BaseContext) -> Counter[str]:
    """Count the words in the processes of a ``multiprocessing.Pool``."""
    with context.Pool(PROCESSES) as pool:
        return total(pool.imap_unordered(words, paths, FILES_AT_ONCE))


def count_with_executor(paths: Iterable[Path], context: BaseContext) -> Counter[str]:
    """Count the words in the processes of a ``concurrent.futures.ProcessPoolExecutor``."""
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as executor:
        return total(executor.map(words, paths, chunksize=FILES_AT_ONCE))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the ten most frequent words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--start-method", choices=multiprocessing.get_all_start_methods())
    parser.add_argument("--executor", action="store_true", help="use a ProcessPoolExecutor")
    options = parser.parse_args(arguments)

    count = count_with_executor if options.executor else count_with_pool
    counted = count(sources(), multiprocessing.get_context(options.start_method))
    for word, times in counted.most_common(10):
        print(f"{times:7} {word}")  # noqa: T201 (a program that prints its result)


if __name__ == "__main__":
    main()
