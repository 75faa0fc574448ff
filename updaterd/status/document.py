# SPDX-License-Identifier: Apache-2.0
"""The read model: how things stand, as one document.

The daemon publishes it as `status.json`, for everybody to read; `updaterd status`
makes it afresh when it may read the database. Its layout is versioned (`schema`) and
written down in updaterd/schemas/status.json. Times are ISO 8601 in UTC, durations
seconds.
"""

import json
import math
import os
import sqlite3
from pathlib import Path

from updaterd import __version__
from updaterd.core import deferral, lifecycle
from updaterd.core.deferral import WAITS
from updaterd.core.report import meant
from updaterd.core.settings import Product, Settings
from updaterd.core.text import public_url
from updaterd.status import sections
from updaterd.status.disk import abandoned, at_odds
from updaterd.status.problems import judge
from updaterd.status.sections import (
    Document,
    Refusal,
    Status,
    Subscription,
    as_json,
    iso,
)
from updaterd.store.feed_facts import read_feed
from updaterd.store.outbox import Outbox
from updaterd.store.records import Deployment, Installed, ProductFacts, Records
from updaterd.system import presence, progress

SCHEMA = 1

_PROCESS = ("pid", "since", "ticks")
_DAY_S = 86400.0


def refusal(code: str, message: str, *, at: float) -> Document:
    """Return why a configuration was not taken, as `configuration.refused`."""
    document: Document = as_json(Refusal(code, message, iso(at)))
    return document


def daemon_section(
    started_at: float,
    feed: Subscription | None,
    refused: Document | None = None,
    cage: Document | None = None,
) -> Document:
    """Return what only the daemon itself knows.

    Args:
        started_at: Unix seconds.
        feed: the subscription; None before it was tried.
        refused: `refusal` of the last reload; None when it was taken.
        cage: layers that confine the bundle opener; None: not known yet.
    """
    section: Document = {
        "pid": os.getpid(),
        "ticks": presence.ticks(),
        "since": iso(started_at),
        "feed": None,
        "refused": refused,
        "cage": cage,
    }
    if feed is not None:
        section["feed"] = {
            **as_json(feed),
            "since": iso(feed.since),
            "retry_at": iso(feed.retry_at),
        }
    return section


def collect(
    connection: sqlite3.Connection | None,
    settings: Settings,
    *,
    daemon: Document | None,
    now: float,
) -> Document:
    """Return the whole document.

    Args:
        connection: `state.db`, read-only will do; None when there is none yet.
        settings: the configuration.
        daemon: `daemon_section`, None when no daemon runs.
        now: Unix seconds.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    journal = Records(connection) if connection is not None else None
    status = Status(
        schema=SCHEMA,
        generated_at=iso(now),
        updaterd=__version__,
        daemon=(
            {"running": True, **{name: daemon[name] for name in _PROCESS}}
            if daemon
            else {"running": False}
        ),
        configuration={"refused": daemon["refused"] if daemon else None},
        cage=daemon["cage"] if daemon else None,
        feed=_feed(connection, settings, daemon["feed"] if daemon else None),
        trust=_trust(journal, now),
        reports=_reports(connection, settings, now),
        notice=(journal and journal.meta("set_aside")) or None,
        abandoned=abandoned(journal, settings.products) if journal else [],
        products=tuple(
            _product(journal, product, now, settings)
            for _, product in sorted(settings.products.items())
        ),
    )
    return judge(as_json(status))


def encode(document: Document) -> bytes:
    """Return the document as the bytes of `status.json`."""
    return json.dumps(document, indent=1).encode() + b"\n"


def _feed(
    connection: sqlite3.Connection | None, settings: Settings, open_: Document | None
) -> sections.Feed:
    url = public_url(settings.feed.url)
    if connection is None:
        return sections.Feed(url=url, connection=open_)
    facts = read_feed(connection, settings.products)
    return sections.Feed(
        url=url,
        cursor=facts.cursor,
        cursor_at=iso(facts.cursor_at),
        pending=facts.pending,
        quarantined=facts.quarantined,
        quarantine_reason=facts.quarantine_reason,
        last_event_at=iso(facts.last_event_at),
        connection=open_,
    )


def _trust(journal: Records | None, now: float) -> sections.Trust:
    roles = journal.roles() if journal else ()
    good = journal.last_good_time() if journal else 0.0
    return sections.Trust(
        roles=tuple(
            sections.Role(
                role.name,
                role.version,
                iso(role.expires_at),
                # up: 0 is expired, and the last hour is not
                math.ceil((role.expires_at - now) / _DAY_S * 10) / 10,
            )
            for role in sorted(roles, key=lambda role: role.expires_at)
        ),
        warnings=json.loads((journal and journal.meta("warnings")) or "[]"),
        last_good_time=iso(good or None),
        clock_suspect=now < good - _DAY_S,
    )


def _reports(
    connection: sqlite3.Connection | None, settings: Settings, now: float
) -> sections.Reports:
    send, url = settings.reports.send, public_url(settings.reports.url)
    if connection is None or not send:
        return sections.Reports(send=send, url=url if send else "")
    outbox = Outbox(connection)
    state, waiting = outbox.sending(), outbox.count()
    return sections.Reports(
        send=send,
        url=url,
        waiting=waiting,
        lost=state.lost_ever,
        sent_at=iso(state.sent_at),
        next_attempt_at=iso(meant(state.next_at, now) or None) if waiting else None,
        error=sections.LastError(state.code, state.error) if state.code else None,
    )


def _product(
    journal: Records | None, product: Product, now: float, settings: Settings
) -> sections.Product:
    name, channel, root = product.name, product.channel, str(product.root)
    if journal is None:
        return sections.Product(
            name=name, channel=channel, root=root, activate=product.activate
        )
    facts = journal.product(name)
    # the newest that is open, and the newest that has ended
    recent = [
        (row.state in lifecycle.ENDS, _deployment(row))
        for row in journal.history(name, limit=2)
    ]
    return sections.Product(
        name=name,
        channel=channel,
        root=root,
        installed=_installed(journal.installed(name)),
        at_odds=at_odds(journal, product),
        in_the_way=journal.in_the_way(name),
        target=_target(facts),
        decision=_decision(facts),
        hold=_hold(facts, now),
        deployment=next((row for is_over, row in recent[::-1] if not is_over), None),
        last=next((row for is_over, row in recent if is_over), None),
        activate=product.activate,
        deadline=iso(_deadline(facts, settings.schedule.max_deferral_s)),
        progress=progress.read(Path(settings.directories.runtime), name, now)
        if any(not is_over for is_over, _ in recent)
        else None,
        checked_at=iso(facts.checked_at),
        next_attempt_at=iso(
            _next_attempt_at(facts, now, settings.feed.fallback_poll_s)
        ),
        failures=facts.failures,
        last_error=_last_error(facts),
    )


def _deadline(facts: ProductFacts, max_deferral_s: float) -> float | None:
    """Return when what is ready is activated, whatever asks it to wait."""
    if facts.decision not in WAITS:
        return None
    return deferral.deadline(facts.pending_since, max_deferral_s)


def _installed(row: Installed | None) -> sections.Installed | None:
    if row is None:
        return None
    since = iso(row.installed_at)
    return sections.Installed(row.version, row.seq, row.tree, since)


def _target(facts: ProductFacts) -> sections.Target | None:
    if facts.target_version is None:
        return None
    return sections.Target(facts.target_version, facts.target_seq)


def _decision(facts: ProductFacts) -> sections.Decision:
    if not facts.decision and facts.checked_at is None:
        return sections.Decision("", "not checked yet")
    reason = facts.decision_reason or "nothing could be decided yet"
    return sections.Decision(facts.decision, reason)


def _hold(facts: ProductFacts, now: float) -> sections.Hold | None:
    if facts.hold_until is None or now >= facts.hold_until:
        return None
    until = iso(facts.hold_until)
    return sections.Hold(until, facts.hold_reason, facts.hold_at or None)


def _last_error(facts: ProductFacts) -> sections.LastError | None:
    if not facts.last_error:
        return None
    return sections.LastError(facts.last_error_code, facts.last_error)


def _next_attempt_at(facts: ProductFacts, now: float, poll_s: float) -> float | None:
    planned = facts.next_attempt_at
    if planned is None or facts.checked_at is None or facts.checked_at <= now:
        return planned
    # By a clock that was ahead: the daemon's safety poll comes before.
    return min(planned, now + poll_s)


def describe(deployment: Deployment) -> Document:
    """Return one deployment as `status` and `history` show it."""
    document: Document = as_json(_deployment(deployment))
    return document


def _deployment(deployment: Deployment) -> sections.Deployment:
    return sections.Deployment(
        id=deployment.id,
        version=deployment.version,
        seq=deployment.seq,
        from_version=deployment.from_version,
        trigger=deployment.trigger,
        state=str(deployment.state),
        code=deployment.code,
        reason=deployment.reason,
        path=deployment.path,
        bytes_fetched=deployment.bytes_fetched,
        bytes_planned=deployment.bytes_planned,
        bytes_full=deployment.bytes_full,
        started_at=iso(deployment.started_at),
        updated_at=iso(deployment.updated_at),
        ended_at=iso(deployment.ended_at),
    )
