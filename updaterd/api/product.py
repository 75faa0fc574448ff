# SPDX-License-Identifier: Apache-2.0
"""A product as the interface shows it, out of the document of `updaterd status`."""

from datetime import datetime
from typing import Any

from updaterd.core.deferral import WAITS
from updaterd.core.lifecycle import State

_STATES = {
    State.QUEUED: "preparing",
    State.PLANNED: "preparing",
    State.FETCHING: "fetching",
    State.STAGING: "building",
    State.STAGED: "ready",
    State.ACTIVATING: "activating",
    State.PROBATION: "activating",
    State.ROLLING_BACK: "rolling_back",
}
_AT_REST = frozenset({"current", "ahead_of_rollout", "paused", "not_in_rollout"})
_LEFT = frozenset({State.ROLLED_BACK, State.FAILED})


def shown(product: dict[str, Any]) -> dict[str, Any]:
    """Return a product of the status document as `Product` of the interface."""
    at_work, target = product["deployment"], product["target"]
    state = _state(product)
    ready = at_work["version"] if at_work and state == "ready" else None
    progress = product["progress"] if state == "fetching" else None
    return {
        "name": product["name"],
        "channel": product["channel"],
        "root": product["root"],
        "state": state,
        "code": product["decision"]["code"],
        "reason": product["decision"]["reason"],
        "installed": product["installed"] and product["installed"]["version"],
        "target": target and target["version"],
        "ready": ready,
        "held": product["hold"] is not None,
        "deadline": _seconds(product["deadline"]) if ready else None,
        "progress": progress
        and {name: progress[name] for name in ("done", "total", "percent")},
    }


def _state(product: dict[str, Any]) -> str:
    """Return the one word for how a product stands."""
    at_work, last = product["deployment"], product["last"]
    code = product["decision"]["code"]
    if at_work:
        # each look goes over what is staged again, and it is ready all the while
        waits = code in WAITS and at_work["state"] in (State.PLANNED, State.STAGED)
        return "ready" if waits else _STATES[State(at_work["state"])]
    if code == "blocked" and last and last["state"] in _LEFT:
        return "rolled_back" if last["state"] == State.ROLLED_BACK else "failed"
    if product["failures"]:
        return "failed"
    if product["installed"] is None:
        return "not_installed"
    return "current" if code in _AT_REST else "waiting"


def _seconds(moment: str | None) -> int | None:
    return None if moment is None else int(datetime.fromisoformat(moment).timestamp())
