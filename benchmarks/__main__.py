"""All benchmarks in one table: ``python benchmarks [--quick] [--runs N]``."""

import by_hand
import untouched
from compare import main

main(untouched.benchmark, by_hand.benchmark)
