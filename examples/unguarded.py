"""The program of guarded.py without its guard: a child that imports it would start a child too.

Try it with ``python examples/unguarded.py spawn``.
"""

import multiprocessing
import sys


def work() -> None:
    """Do nothing: the child got here, that is what counts."""


multiprocessing.set_start_method(sys.argv[1], force=True)  # in a child, one is set already
child = multiprocessing.Process(target=work)
child.start()
child.join()
sys.exit(child.exitcode)
