# SPDX-License-Identifier: Apache-2.0
"""The plans of rollouts that a publisher can name: built in, or in `release.toml`.

plan = "guarded"                     # of every push; or by product and channel:
[plan]
"acme/stable" = "guarded"

[plans.mine]
steps = [{ permille = 10, dwell_s = 3600, min_reports = 100 },
         { permille = 1000, dwell_s = 86400, min_reports = 1000 }]
halt = { failed_permille = 20, confidence = 990 }
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from updaterd.core.channel import ChannelPointer
from updaterd.core.json_fields import Fields
from updaterd.core.plan import BY_HAND, RUNNING, Limits, Plan, Step, parse_steps
from updaterd.errors import BrokenError, MalformedError

NONE = "none"
_HOUR, _DAY = 3600, 86400
BUILT_IN = {
    "guarded": (
        Step(permille=10, dwell_s=4 * _HOUR, min_reports=100),
        Step(permille=100, dwell_s=_DAY, min_reports=500),
        Step(permille=500, dwell_s=_DAY, min_reports=500),
        Step(permille=1000, dwell_s=_DAY, min_reports=500),
    ),
    "guarded-small": (
        Step(permille=150, dwell_s=4 * _HOUR, min_reports=79),
        Step(permille=500, dwell_s=_DAY, min_reports=79),
        Step(permille=1000, dwell_s=_DAY, min_reports=79),
    ),
}
"""The second one is for hundreds of machines: 1 % of them would tell nothing."""


def named(name: str, tables: Mapping[str, object]) -> Plan:
    """Return a plan that is not about a release yet.

    Args:
        name: of a built-in plan, of one in `release.toml`, or a file's.
        tables: `plans` of `release.toml`.

    Raises:
        BrokenError: there is none, or it makes no sense.
    """
    if name in tables:
        return _read(tables[name], f"plans.{name}")
    if name in BUILT_IN:
        return Plan(version="", steps=BUILT_IN[name], halt=Limits())
    path = Path(name)
    if not path.is_file():
        names = ", ".join([*BUILT_IN, *tables])
        raise BrokenError(
            f"there is no plan {name!r:.100}, and no such file",
            means="nothing was published",
            do=f"name one of {names}, or a file (TOML or JSON) with `steps`",
            code="plan",
        )
    try:
        text = path.read_text("utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise BrokenError(
            f"cannot read the plan {name}: {error}",
            means="nothing was published",
            code="plan",
        ) from error
    return _read(table, name)


def _read(table: object, where: str) -> Plan:
    """Return the plan in a table.

    Raises:
        BrokenError: it is none.
    """
    try:
        members = Fields({"plan": table}, where).members("plan")
        steps, limits = parse_steps(Fields(members, where))
    except MalformedError as error:
        raise BrokenError(
            f"this is no plan: {error.cause}",
            means="nothing was published",
            do="see docs/rollouts.md for what a plan says",
            code="plan",
        ) from error
    if not limits.failed_permille:  # a machine that reads it has nothing to refuse
        raise BrokenError(
            f"{where}: failed_permille is 0, and no number of machines proves that "
            "none fails",
            means="such a plan would never step on. Nothing was published",
            do="write at least 1: one machine of 1000",
            code="plan",
        )
    return Plan(version="", steps=steps, halt=limits)


def configured(folder: Path) -> Mapping[str, Any]:
    """Return `release.toml` as it is, for `plan`, `plans` and `webhooks`.

    Raises:
        BrokenError: it cannot be read.
    """
    try:
        return tomllib.loads((folder / "release.toml").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenError(
            f"cannot read {folder / 'release.toml'}: {error}", code="bad_workspace"
        ) from error


def of_push(
    folder: Path, name: str | None, *, product: str, channel: str
) -> Plan | None:
    """Return the plan of what is offered now; None: it has none.

    Args:
        folder: the workspace.
        name: as somebody typed it; None: as `release.toml` says.
        product: whose.
        channel: where.

    Raises:
        BrokenError: there is no such plan, or it makes no sense.
    """
    table = configured(folder)
    if name is None:
        wish = table.get("plan", NONE)
        if isinstance(wish, dict):
            wish = wish.get(f"{product}/{channel}", NONE)
        name = str(wish)
    if name == NONE:
        return None
    tables = table.get("plans", {})
    return named(name, tables if isinstance(tables, dict) else {})


def by_hand(pointer: ChannelPointer, *, now: int, resumed: bool) -> ChannelPointer:
    """Return a pointer that a person moved, with its plan moved along.

    To one of the plan's steps: it goes on from there. Anywhere else, or resumed after
    it was halted: the person has taken over, until it is moved to a step again.
    """
    plan = pointer.plan
    if plan is None or not pointer.releases:
        return pointer
    rollout = pointer.releases[0].rollout
    for index, step in enumerate(plan.steps):
        if step.permille == rollout.permille and not resumed:
            if index != plan.step or plan.state == BY_HAND:
                plan = replace(plan, state=RUNNING, step=index, since=now, reason="")
            return replace(pointer, plan=plan)
    reason = "resumed by hand" if resumed else "moved by hand"
    moved = replace(plan, state=BY_HAND, since=now, reason=reason)
    return replace(pointer, plan=moved)
