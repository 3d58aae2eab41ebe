"""No package imports one that comes after it, and modules that all need import no package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest_startmethod

ROOT = Path(pytest_startmethod.__file__).parent
GROUND = {
    *("system", "guard", "invocation", "record", "registration", "hookspecs"),
    *("importer", "load_hooks"),
    "warning_classes",
    "weak_map",
}
# What each may import beside the ground and itself; what isn't named here may import all.
ARROWS = {
    **{room: set[str]() for room in GROUND},
    "settings": {"selection", "launch"},  # can what is to be preloaded be imported?
    "selection": {"settings"},
    "launch": set[str](),
    "kernel": set[str](),
    "processes": {"selection", "kernel"},
    "leaks": {"launch", "kernel", "processes"},
    "stall": {"kernel", "processes", "leaks"},
    "explain": {"launch", "kernel", "processes", "leaks", "stall"},
    "watch": {
        *("settings", "selection", "launch"),
        *("kernel", "processes", "leaks", "stall", "explain"),
    },
    "report": {"settings", "selection"},
    "session": {"kernel"},
    "runs": {"settings", "selection", "watch", "report", "session"},
}


def test_the_ground_imports_no_wing_and_a_wing_imports_none_that_comes_after_it() -> None:
    for file in ROOT.rglob("*.py"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        wing = module.partition(".")[0]
        for imported in _imported(file) - GROUND - {wing} if wing in ARROWS else ():
            assert imported in ARROWS[wing], f"{module} imports {imported}"


def _imported(file: Path) -> set[str]:
    """Return the wings, and the rooms on the ground, that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "pytest_startmethod":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            package, _, rest = node.module.partition(".")
            found |= {rest.partition(".")[0]} if package == "pytest_startmethod" else set()
    return found
