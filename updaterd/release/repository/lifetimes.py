# SPDX-License-Identifier: Apache-2.0
"""How long each kind of signed file counts, in days."""

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

ROOT_DAYS = 365
TARGETS_DAYS = 730
RELEASES_DAYS = 365
CHANNEL_DAYS = 90
SNAPSHOT_DAYS = 365
TIMESTAMP_DAYS = 7


def days_of(role: str) -> int:
    """Return how many days a new edition of the role counts."""
    top = {
        Root.type: ROOT_DAYS,
        Targets.type: TARGETS_DAYS,
        Snapshot.type: SNAPSHOT_DAYS,
        Timestamp.type: TIMESTAMP_DAYS,
    }
    if role in top:
        return top[role]
    kind = role.partition(".")[2]
    return RELEASES_DAYS if kind in {"releases", "archive"} else CHANNEL_DAYS
