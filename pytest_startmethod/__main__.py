"""Runs the command line of ``python -m pytest_startmethod``."""

import sys

from pytest_startmethod.report.combine import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
