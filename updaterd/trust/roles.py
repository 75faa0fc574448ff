# SPDX-License-Identifier: Apache-2.0
"""What is known about each role, for `status`: name, version, expiry.

Reads the cache as plain JSON, without python-tuf: the files in it were verified
when they were written, and nothing here decides what is believed.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from updaterd.core import layout
from updaterd.core.dataclass import dataclass

WARN_DAYS = 60
"""From here on an approaching expiry of a long-lived role is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One signed file: who speaks, which edition, until when it counts."""

    name: str
    version: int
    expires: datetime

    def days_left(self, now: datetime) -> float:
        """Return the days until it expires, negative when it has."""
        return (self.expires - now).total_seconds() / 86400


def parse_expiry(text: str) -> datetime:
    """Return an expiry date (TUF specification 4.2.1: UTC, whole seconds).

    Raises:
        ValueError: it is not one.
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def read_roles(cache: Path) -> tuple[Role, ...]:
    """Return the roles in a trust cache, top-level ones first; unreadable ones not."""
    roles = []
    for path in sorted(cache.glob("*.json")):
        try:
            signed = json.loads(path.read_bytes())["signed"]
            role = Role(
                name=layout.stem(path.name),
                version=int(signed["version"]),
                expires=parse_expiry(signed["expires"]),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        roles.append(role)
    top = {"root": 0, "timestamp": 1, "snapshot": 2, "targets": 3}
    return tuple(sorted(roles, key=lambda role: (top.get(role.name, 4), role.name)))
