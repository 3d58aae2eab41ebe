"""How are hooks registered that only some runs need?"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def register(config: pytest.Config, hooks: object, name: str) -> None:
    """Register those methods of an object that are hooks.

    Not the object: to look for hooks (pluggy 1.7) Python keeps its class in a cache, and the class
    keeps all that pytest has collected, by the loader of its module. Then Python takes longer to
    exit: after 10,000 tests by 3 % of their time (Python 3.12).
    """
    plugin = ModuleType(name, hooks.__doc__)
    names = [hook for hook in dir(hooks) if hook.startswith("pytest_")]
    vars(plugin).update((hook, getattr(hooks, hook)) for hook in names)
    config.pluginmanager.register(plugin, name)
