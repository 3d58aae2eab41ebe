"""All benchmarks in one table: ``python benchmarks [--quick] [--runs N]``."""

import by_hand
import sessions
import untouched
import watching
from compare import main

main(untouched.benchmark, by_hand.benchmark, watching.benchmark, sessions.benchmark)
