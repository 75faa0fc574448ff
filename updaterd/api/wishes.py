# SPDX-License-Identifier: Apache-2.0
"""What an application wishes: written into the journal, for the daemon to see to."""

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from updaterd.api import interface
from updaterd.api.wire import CallError, invalid
from updaterd.core import deferral
from updaterd.core.settings import Product, Settings
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state
from updaterd.system import wake

_LONGEST_S = 30 * 365 * 86400.0


def write(settings: Settings, product: Product, **values: float | str | None) -> None:
    """Write a wish into the journal, and wake the daemon.

    Power cut: the wish stands whole, or nothing of it does.
    """
    with closing(open_state(Path(settings.directories.state) / "state.db")) as opened:
        Journal(opened).remember(product.name, **values)
    wake.nudge(Path(settings.directories.runtime))


def _ready(settings: Settings, product: Product, now: float) -> tuple[str, int, float]:
    """Return the release that waits to be activated, its seq, and its deadline.

    Raises:
        CallError: there is none.
    """
    with closing(open_state(Path(settings.directories.state) / "state.db")) as opened:
        journal = Journal(opened)
        facts, at_work = (
            journal.product(product.name),
            journal.open_deployment(product.name),
        )
    if at_work is None or facts.decision not in deferral.WAITS:
        raise CallError(f"{interface.NAME}.NothingReady", product=product.name)
    since = now if facts.pending_since is None else facts.pending_since
    latest = deferral.deadline(since, settings.schedule.max_deferral_s)
    return at_work.version, at_work.seq, latest


def apply(settings: Settings, product: Product, now: float) -> Mapping[str, object]:
    """Ask for what is ready to be activated now.

    Power cut: as `write`.
    """
    version, seq, _ = _ready(settings, product, now)
    write(settings, product, apply_seq=seq, postponed_until=None, next_attempt_at=now)
    return {"version": version}


def postpone(
    settings: Settings, product: Product, until: float, now: float
) -> Mapping[str, object]:
    """Have what is ready wait, at most until its deadline.

    Power cut: as `write`.
    """
    _, _, latest = _ready(settings, product, now)
    until = min(until, latest)
    write(settings, product, postponed_until=until, apply_seq=None, next_attempt_at=now)
    return {"until": int(until)}


def hold(
    settings: Settings, product: Product, parameters: Mapping[str, Any], now: float
) -> None:
    """Install nothing until a time, or without end.

    Raises:
        invalid: the time is past, or too far away.

    Power cut: as `write`.
    """
    until = interface.moment(parameters, "until", math.inf)
    if math.isfinite(until) and not 0 < until - now <= _LONGEST_S:
        raise invalid("until")
    reason = interface.text(parameters, "reason", "")
    with closing(open_state(Path(settings.directories.state) / "state.db")) as opened:
        known = Journal(opened).product(product.name)
    stands = known.hold_until is not None and now < known.hold_until
    at = known.hold_at if stands else ""  # one that is over names no release
    write(settings, product, hold_until=until, hold_reason=reason, hold_at=at)
