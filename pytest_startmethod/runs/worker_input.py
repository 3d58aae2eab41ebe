"""Makes the input and the environment by which a session looks like a worker of pytest-xdist."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_startmethod import invocation

if TYPE_CHECKING:
    import pytest


def make(config: pytest.Config, number: int) -> dict[str, Any]:
    """Return the ``workerinput`` of a session: those items that are plain values."""
    workers = count(config)
    name = f"gw{number}" if workers else "master"  # what xdist's fixture `worker_id` returns
    made: dict[str, Any] = {
        "workerid": name,
        "workercount": max(workers, 1),
        "testrunuid": getattr(config.option, "testrunuid", None) or "startmethod",
        "mainargv": list(invocation.ARGV),
    }
    node = SimpleNamespace(
        config=config,
        workerinput=made,
        gateway=SimpleNamespace(id=name, spec=None),
        nodemanager=SimpleNamespace(roots=[]),
    )
    _ask_plugins(config, node)
    _tell_known_plugins(config, made)
    return {key: value for key, value in made.items() if _is_plain(value)}


def environment(config: pytest.Config, number: int) -> dict[str, str]:
    """Return the environment variables that a worker of pytest-xdist has."""
    workers = count(config)
    if not workers:
        return {}
    return {
        "PYTEST_XDIST_WORKER": f"gw{number}",
        "PYTEST_XDIST_WORKER_COUNT": str(workers),
        "PYTEST_XDIST_TESTRUNUID": getattr(config.option, "testrunuid", None) or "startmethod",
    }


def count(config: pytest.Config) -> int:
    """Return how many workers pytest-xdist has."""
    if getattr(config.option, "dist", "no") == "no":
        return 0
    return len(getattr(config.option, "tx", None) or [""])


def _ask_plugins(config: pytest.Config, node: SimpleNamespace) -> None:
    """Call the hook of pytest-xdist by which plugins prepare a worker, if there is one.

    One plugin after another: pytest-cov's fails if pytest-xdist distributes nothing.
    """
    caller = getattr(config.hook, "pytest_configure_node", None)
    implementations = caller.get_hookimpls() if caller is not None else ()
    for asked in implementations:
        others = [other.plugin for other in implementations if other is not asked]
        try:
            config.pluginmanager.subset_hook_caller("pytest_configure_node", others)(node=node)
        except Exception:  # noqa: BLE001 (another plugin's error)
            continue


def _tell_known_plugins(config: pytest.Config, made: dict[str, Any]) -> None:
    """Add what these plugins send their workers, and what no public call returns.

    pytest-cov's names are the same from 2.0 to 7.1, pytest-randomly's from 1.0 to 5.1; if one goes
    missing, the session ends with an error that names it.
    """
    if hasattr(config.option, "randomly_seed"):
        made.setdefault("randomly_seed", config.option.randomly_seed)
    if hasattr(config.option, "cov_source"):
        made.setdefault("cov_master_host", socket.gethostname())
        made.setdefault("cov_master_topdir", str(config.rootpath))
        made.setdefault("cov_master_rsync_roots", [])


def _is_plain(value: object) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
