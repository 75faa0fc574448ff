# SPDX-License-Identifier: Apache-2.0
"""The sections of the status document, and how they become JSON.

Each class is one object of `updaterd status --json` and of status.json, its fields in
their order; `updaterd/schemas/status.json` says what each means. A member may be added
to both, never changed.
"""

import math
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from updaterd.core.dataclass import dataclass

Document = dict[str, Any]
"""A section, or the whole, as JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The feed connection as the daemon sees it; see `feed.client`. Unix seconds."""

    phase: str
    code: str = ""
    error: str = ""
    since: float = 0.0
    attempt: int = 0
    retry_at: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a configuration was not taken."""

    code: str
    message: str
    at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """`feed`: the address, what `state.db` says, and the connection."""

    url: str
    cursor: str | None = None
    cursor_at: str | None = None
    pending: int = 0
    quarantined: int = 0
    quarantine_reason: str = ""
    last_event_at: str | None = None
    connection: Document | None = None


@dataclass(frozen=True, slots=True)
class Role:
    """`trust.roles[]`: a role of the signed metadata, as last seen."""

    name: str
    version: int
    expires_at: str | None
    days_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """`trust`: what the signed metadata is worth now."""

    roles: tuple[Role, ...]
    warnings: list[dict[str, str]]
    last_good_time: str | None
    clock_suspect: bool


@dataclass(frozen=True, slots=True)
class Installed:
    """`products[].installed`: the release that runs."""

    version: str
    seq: int
    tree: str
    since: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """`products[].target`: the release that the channel wants here."""

    version: str
    seq: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """`products[].decision`: what was decided last, and why."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """`products[].hold`: a person had updates wait; None is without end."""

    until: str | None
    reason: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class LastError:
    """`products[].last_error`: why the last attempt failed."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """`products[].deployment` and `.last`: one attempt to bring a release here."""

    id: int
    version: str
    seq: int
    from_version: str | None
    trigger: str
    state: str
    code: str
    reason: str
    path: str
    bytes_fetched: int
    bytes_planned: int
    bytes_full: int
    started_at: str | None
    updated_at: str | None
    ended_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`products[]`: one application on this machine."""

    name: str
    channel: str
    root: str
    installed: Installed | None = None
    at_odds: str | None = None
    in_the_way: tuple[str, ...] = ()
    target: Target | None = None
    decision: Decision = Decision("", "not checked yet")
    hold: Hold | None = None
    deployment: Deployment | None = None
    last: Deployment | None = None
    activate: str = "at-once"
    deadline: str | None = None
    progress: Document | None = None
    checked_at: str | None = None
    next_attempt_at: str | None = None
    failures: int = 0
    last_error: LastError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """`reports`: what this machine tells about its updates, where its owner wants."""

    send: bool = False
    url: str = ""
    waiting: int = 0
    lost: int = 0
    sent_at: str | None = None
    next_attempt_at: str | None = None
    error: LastError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The document without `state`, `exit_code` and `problems` (`status.problems`)."""

    schema: int
    generated_at: str | None
    updaterd: str
    daemon: Document
    configuration: Document
    cage: Document | None
    feed: Feed
    trust: Trust
    reports: Reports
    notice: str | None
    abandoned: list[str]
    products: tuple[Product, ...]


def as_json(section: object) -> Any:
    """Return a section as JSON has it: objects for classes, arrays for tuples."""
    if is_dataclass(section):
        return {
            field.name: as_json(getattr(section, field.name))
            for field in fields(section)
        }
    if isinstance(section, tuple):
        return [as_json(item) for item in section]
    return section


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
