# SPDX-License-Identifier: Apache-2.0
"""The read model: how things stand, as one document.

The daemon publishes it as `status.json`, for everybody to read; `updaterd status`
makes it afresh when it may read the database. Its layout is versioned (`schema`):
members may be added, never changed. Times are ISO 8601 in UTC, durations seconds.

    state         exit code
    current        0   nothing to do
    not_running    4   nobody listens to the feed
    pending       10   an update is under way, waits, or is held
    degraded      20   feed down, metadata expired or expiring, last attempt failed,
                       the repository asks for what this machine must not do, or
                       something stands in the way of deleting old releases
    rolled_back   30   what a product's channel offers was rolled back here

The first that applies of: not_running, rolled_back, degraded, pending, current.
"""

import json
import math
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from updaterd import __version__
from updaterd.core import lifecycle
from updaterd.core.lifecycle import State
from updaterd.core.settings import Product, Settings
from updaterd.core.text import public_url
from updaterd.store.contradiction import abandoned, at_odds
from updaterd.store.feed_facts import read_feed
from updaterd.store.records import Deployment, ProductFacts, Records
from updaterd.system import presence

SCHEMA = 1
EXIT_CODES = {
    "current": 0,
    "not_running": 4,
    "pending": 10,
    "degraded": 20,
    "rolled_back": 30,
}

Document = dict[str, Any]
_PROCESS = ("pid", "since", "ticks")

_WAITING = frozenset({
    "held", "splay", "outside_window", "not_understood", "newer_schema"
})  # fmt: skip
_LEFT = frozenset({"blocked", "rolled_back_by_hand"})
# Nobody has looked yet, or there was nothing for this machine.
_NOTHING_YET = frozenset({
    "",
    "paused",
    "nothing_offered",
    "not_in_rollout",
    "not_for_platform",
})
_REFUSED = frozenset({"metadata_rollback", "below_floor"})
_WILL_NOT_DO = frozenset({State.REJECTED, State.FAILED})
_FINE = frozenset({"current", "pending"})
_ACTING = frozenset({"install", "upgrade", "step_back"})
_DAY_S = 86400.0
_NAMED = 5  # products in one line, obstacles of one product
# Days before expiry at which a person should know. A timestamp lives a week and is
# signed daily; root and targets need people to meet.
_WARN_DAYS = {"timestamp": 2.0, "root": 60.0, "targets": 60.0}
_WARN_DAYS_OTHER = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The feed connection as the daemon sees it; see `feed.client`."""

    phase: str
    code: str = ""
    error: str = ""
    since: float = 0.0
    attempt: int = 0
    retry_at: float | None = None
    note: str = ""


def iso(moment: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 in UTC; None for never or without end.

    A moment that no calendar has (a hold of 10,000 years) is without end too: one
    odd value in the journal must not silence the whole document.
    """
    if moment is None or math.isinf(moment):
        return None
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


def refusal(code: str, message: str, *, at: float) -> Document:
    """Return why a configuration was not taken, as `configuration.refused`."""
    return {"code": code, "message": message, "at": iso(at)}


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
        cage: layers that confine the process that opens bundles; None: not known yet.
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
            **asdict(feed),
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
    feed: Document = {"url": public_url(settings.feed.url)}
    if connection is not None:
        feed.update(_as_json(asdict(read_feed(connection, settings.products))))
    feed["connection"] = daemon["feed"] if daemon else None
    document: Document = {
        "schema": SCHEMA,
        "generated_at": iso(now),
        "updaterd": __version__,
        "daemon": (
            {"running": True, **{name: daemon[name] for name in _PROCESS}}
            if daemon
            else {"running": False}
        ),
        "configuration": {"refused": daemon["refused"] if daemon else None},
        "cage": daemon["cage"] if daemon else None,
        "feed": feed,
        "trust": _trust(journal, now),
        "notice": (journal and journal.meta("set_aside")) or None,
        "abandoned": abandoned(journal, settings.products) if journal else [],
        "products": [
            _product(journal, product, now, settings.feed.fallback_poll_s)
            for _, product in sorted(settings.products.items())
        ],
    }
    return judge(document)


def left_behind(document: Document) -> Document:
    """Return what a daemon published that does not run any more."""
    return {
        **document,
        "daemon": {"running": False},
        "feed": {**document["feed"], "connection": None},
        "state": "not_running",
        "exit_code": EXIT_CODES["not_running"],
    }


def unreadable(document: Document, why: str) -> Document:
    """Return what a daemon published, when the database itself cannot be read now."""
    degraded = "degraded" if document["state"] in _FINE else document["state"]
    return {
        **document,
        "state": degraded,
        "exit_code": EXIT_CODES[degraded],
        "problems": [why, *document["problems"]],
    }


def misread(document: Document, refused: Document) -> Document:
    """Return what a daemon published, when the configuration cannot be read now."""
    found = {**document, "configuration": {"refused": refused}}
    old = _configuration_problems(document)
    others = (problem for problem in document["problems"] if problem not in old)
    degraded = "degraded" if document["state"] in _FINE else document["state"]
    return {
        **found,
        "state": degraded,
        "exit_code": EXIT_CODES[degraded],
        "problems": [*_configuration_problems(found), *others],
    }


def judge(document: Document) -> Document:
    """Set `state`, `exit_code` and `problems` from the rest of the document."""
    products = document["products"]
    problems = [
        *_configuration_problems(document),
        *_feed_problems(document),
        *_trust_problems(document),
        *document["abandoned"],
        *(_about(p, p["at_odds"]) for p in products if p["at_odds"]),
        *(
            _about(p, f"cannot be deleted: {path}")
            for p in products
            for path in p["in_the_way"][:_NAMED]
        ),
        *(
            _about(product, product["last_error"]["message"])
            for product in products
            if product["failures"] and product["last_error"]
        ),
        *(
            _about(product, product["decision"]["reason"])
            for product in products
            if _is_refused(product)
        ),
    ]
    if not document["daemon"]["running"]:
        state = "not_running"
    elif any(_is_left(product) for product in products):
        state = "rolled_back"
    elif problems:
        state = "degraded"
    elif any(_is_pending(product) for product in products):
        state = "pending"
    else:
        state = "current"
    document.update(state=state, exit_code=EXIT_CODES[state], problems=problems)
    return document


def _about(product: Document, message: str) -> str:
    """Return a message with the product's name before it, once."""
    said = f"{product['name']}: "
    return message if message.startswith(said) else said + message


def _is_refused(product: Document) -> bool:
    """Tell whether the last answer was one that this machine must not follow."""
    code, last = product["decision"]["code"], product["last"]
    rejected = last is not None and last["state"] in _WILL_NOT_DO
    return code in _REFUSED or (code == "blocked" and rejected)


def of_block(last: str | None) -> str:
    """Return the state of a product whose offered release is blocked here.

    `update` and `status` end with its exit code.

    Args:
        last: the state in which the product's last deployment ended.
    """
    return "degraded" if last in _WILL_NOT_DO else "rolled_back"


def _is_left(product: Document) -> bool:
    """Tell whether what the channel offers ran here and was left.

    It is over when the channel offers what is installed, as after the publisher's own
    step back.
    """
    code, last = product["decision"]["code"], product["last"]
    state = last["state"] if last else None
    if code in _LEFT:
        return of_block(state) == "rolled_back"
    if state != State.ROLLED_BACK:
        return False
    target = product["target"]
    offered = target is None or target["version"] == last["version"]
    return offered or code != "current"


def _is_pending(product: Document) -> bool:
    decision, target, installed = (
        product[name] for name in ("decision", "target", "installed")
    )
    if product["deployment"] or decision["code"] in _WAITING:
        return True
    if installed is None and decision["code"] in _NOTHING_YET:
        return True
    there = installed and target and installed["seq"] == target["seq"]
    return decision["code"] in _ACTING and not there


def headline(document: Document) -> str:
    """Return one line: for systemd's `systemctl status` and the top of the page."""
    state: str = document["state"]
    products = document["products"]
    named = ", ".join(
        f"{product['name']} "
        + (product["installed"]["version"] if product["installed"] else "not installed")
        for product in products[:_NAMED]
    )
    if len(products) > _NAMED:
        named += f" and {len(products) - _NAMED} more"
    said = {
        "current": "up to date",
        "not_running": "the daemon is not running",
        "pending": "an update is pending",
        "degraded": "degraded: " + "; ".join(document["problems"][:1]),
        "rolled_back": "the last update was rolled back",
    }[state]
    return f"{said} ({named or 'no products configured'})"


def encode(document: Document) -> bytes:
    """Return the document as the bytes of `status.json`."""
    return json.dumps(document, indent=1).encode() + b"\n"


def _trust(journal: Records | None, now: float) -> Document:
    roles = journal.roles() if journal else ()
    good = journal.last_good_time() if journal else 0.0
    return {
        "roles": [
            {
                "name": role.name,
                "version": role.version,
                "expires_at": iso(role.expires_at),
                # up: 0 is expired, and the last hour is not
                "days_left": math.ceil((role.expires_at - now) / _DAY_S * 10) / 10,
            }
            for role in sorted(roles, key=lambda role: role.expires_at)
        ],
        "warnings": json.loads((journal and journal.meta("warnings")) or "[]"),
        "last_good_time": iso(good or None),
        "clock_suspect": now < good - _DAY_S,
    }


def _product(
    journal: Records | None, product: Product, now: float, poll_s: float
) -> Document:
    document: Document = {
        "name": product.name,
        "channel": product.channel,
        "root": str(product.root),
        "installed": None,
        "at_odds": None,
        "in_the_way": [],
        "target": None,
        "decision": {"code": "", "reason": "not checked yet"},
        "hold": None,
        "deployment": None,
        "last": None,
        "checked_at": None,
        "next_attempt_at": None,
        "failures": 0,
        "last_error": None,
    }
    if journal is None:
        return document
    facts = journal.product(product.name)
    installed = journal.installed(product.name)
    document["at_odds"] = at_odds(journal, product)
    document["in_the_way"] = list(journal.in_the_way(product.name))
    if installed is not None:
        document["installed"] = {
            "version": installed.version,
            "seq": installed.seq,
            "tree": installed.tree,
            "since": iso(installed.installed_at),
        }
    if facts.target_version is not None:
        document["target"] = {"version": facts.target_version, "seq": facts.target_seq}
    if facts.decision or facts.checked_at is not None:
        document["decision"] = {
            "code": facts.decision,
            "reason": facts.decision_reason or "nothing could be decided yet",
        }
    if facts.hold_until is not None and now < facts.hold_until:
        document["hold"] = {"until": iso(facts.hold_until), "reason": facts.hold_reason}
    for deployment in journal.history(product.name, limit=2):
        if deployment.state not in lifecycle.ENDS:
            document["deployment"] = describe(deployment)
        elif document["last"] is None:
            document["last"] = describe(deployment)
    document["checked_at"] = iso(facts.checked_at)
    document["next_attempt_at"] = iso(_next_attempt_at(facts, now, poll_s))
    document["failures"] = facts.failures
    if facts.last_error:
        document["last_error"] = {
            "code": facts.last_error_code,
            "message": facts.last_error,
        }
    return document


def _next_attempt_at(facts: ProductFacts, now: float, poll_s: float) -> float | None:
    planned = facts.next_attempt_at
    if planned is None or facts.checked_at is None or facts.checked_at <= now:
        return planned
    # By a clock that was ahead: the daemon's safety poll comes before.
    return min(planned, now + poll_s)


def describe(deployment: Deployment) -> Document:
    """Return one deployment as `status` and `history` show it."""
    return {
        "id": deployment.id,
        "version": deployment.version,
        "seq": deployment.seq,
        "from_version": deployment.from_version,
        "trigger": deployment.trigger,
        "state": str(deployment.state),
        "code": deployment.code,
        "reason": deployment.reason,
        "path": deployment.path,
        "bytes_fetched": deployment.bytes_fetched,
        "bytes_planned": deployment.bytes_planned,
        "bytes_full": deployment.bytes_full,
        "started_at": iso(deployment.started_at),
        "updated_at": iso(deployment.updated_at),
        "ended_at": iso(deployment.ended_at),
    }


def _as_json(values: Mapping[str, Any]) -> Document:
    """Return the facts with every `*_at` as ISO 8601."""
    return {
        name: iso(value) if name.endswith("_at") else value
        for name, value in values.items()
    }


def _configuration_problems(document: Document) -> list[str]:
    refused = (document.get("configuration") or {}).get("refused")
    if refused is None:
        return []
    goes_on = "the daemon goes on with what it read before; "
    said = goes_on if document["daemon"]["running"] else ""
    then = f"{said}correct it, then `systemctl reload updaterd`"
    return [f"configuration refused: {refused['message']}. {then}"]


def _feed_problems(document: Document) -> list[str]:
    connection = document["feed"]["connection"]
    if connection is None or connection["phase"] == "open":
        return []
    if connection["phase"] == "connecting" and not connection["code"]:
        return []  # the first attempt
    if connection["code"] == "closed" and connection["attempt"] <= 1:
        return []  # how a server rotates its streams; it is back in a moment
    why = connection["error"] or connection["code"] or "not connected"
    return [f"feed down: {why}"]


def _trust_problems(document: Document) -> list[str]:
    problems = []
    for role in document["trust"]["roles"]:
        name, days = role["name"], role["days_left"]
        if days <= 0:
            problems.append(
                f"metadata expired: role {name} since {role['expires_at']}; the "
                "publisher must run `updaterd release refresh`"
            )
        elif days < _WARN_DAYS.get(name, _WARN_DAYS_OTHER):
            problems.append(f"metadata expiring: role {name} in {days} days")
    problems += [warning["what"] for warning in document["trust"]["warnings"]]
    known = {warning["code"] for warning in document["trust"]["warnings"]}
    if document["trust"]["clock_suspect"] and "clock_suspect" not in known:
        problems.append(
            "clock suspect: it is behind a time that signed metadata vouched for; "
            "set it right"
        )
    return problems
