# SPDX-License-Identifier: Apache-2.0
"""Whose processes keep an old release from being deleted.

Root's, the daemon's own, those of the product's units and of the users whom the owner
names (`users`). Any user of the machine may open a file of a release, or call a process
as if it ran from it; if that counted, one descriptor in each would fill the disk.

A daemon that is not root does not see what others' processes hold: only, by a lease
(leases.py), that somebody has a file open. Then it asks whether it can be one of those
who count: is there a unit of the product, or a session of such a user, that was there
already when `current` left the release?
"""

import os
import pwd
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product

_ASKED = "ActiveState,InactiveExitTimestampMonotonic,User,UID"
_OVER = ("inactive", "failed")
_NO_UID = 2**32 - 1

Properties = Callable[[str, str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Holders:
    """Who counts.

    Attributes:
        uids: the users whose processes keep a release.
        unseen: whether one of theirs that is not seen may run from an older release.
    """

    uids: frozenset[int]
    unseen: bool = False

    def count(self, process: Path) -> bool:
        """Tell whether a process counts: by the user who started it.

        Not by the rights it has: a set-user-id program is started by anybody.
        """
        return real_uid(process) in self.uids


def find(product: Product, ask: Properties) -> Holders:
    """Return whose processes keep a release of a product.

    Args:
        product: the application.
        ask: returns properties of a unit, by name: `Systemd.properties`.
    """
    uids = {0, os.geteuid()}
    left_at = _left_at(Path(product.root))
    named = {uid for name in product.users if (uid := _uid(name)) is not None}
    unseen = False
    for unit in (*product.units, *(f"user-{uid}.slice" for uid in named)):
        answers = ask(unit, _ASKED)
        unseen = unseen or _is_older(answers, left_at)
        if unit in product.units:
            uids |= _users(answers)
    return Holders(frozenset(uids | named), unseen and os.geteuid() != 0)


def real_uid(process: Path) -> int | None:
    """Return who started a process of /proc; None: it is gone."""
    try:
        status = (process / "status").read_bytes()
    except OSError:
        return None
    _, _, line = status.partition(b"\nUid:")
    words = line.split(None, 1)
    return int(words[0]) if words and words[0].isdigit() else None


def _users(unit: Mapping[str, str]) -> set[int]:
    """Return the user of a unit: by name, or the number that it has while it runs."""
    numbers = {_uid(unit.get("User", "")), _uid(unit.get("UID", ""))}
    return {uid for uid in numbers if uid is not None}


def _uid(name: str) -> int | None:
    if name.isdigit():
        return int(name) if int(name) != _NO_UID else None
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


def _left_at(root: Path) -> float:
    """Return when `current` last moved, by the monotonic clock, in seconds."""
    try:
        moved_at = (root / "current").lstat().st_ctime
    except OSError:
        return 0.0
    now = time.clock_gettime(time.CLOCK_REALTIME)
    return time.clock_gettime(time.CLOCK_MONOTONIC) - (now - moved_at)


def _is_older(unit: Mapping[str, str], left_at: float) -> bool:
    """Tell whether a unit may have processes from before `left_at`."""
    if unit.get("ActiveState", "") in _OVER:
        return False
    since = unit.get("InactiveExitTimestampMonotonic", "")
    # one that is not told about may well be
    return not since.isdigit() or int(since) / 1e6 < left_at
