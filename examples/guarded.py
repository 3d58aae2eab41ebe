"""A program with a guard: whoever imports it gets its functions, and starts nothing.

Try it with ``python examples/guarded.py spawn``.
"""

import multiprocessing
import sys


def work() -> None:
    """Do nothing: the child got here, that is what counts."""


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    child = multiprocessing.Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
