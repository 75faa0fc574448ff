# SPDX-License-Identifier: Apache-2.0
"""updaterd's own next release: when to make way for it, and how to condemn it.

updaterd is a product like any other. What differs is who watches the trial: a daemon
cannot see itself hang. So the package brings a guard that self-updates never touch
(packaging/private/guard.py); it counts failed starts of a release on trial, puts the
last good one back, and has *that* one's `condemn` write the verdict into the journal.
The guard's own note keeps it too (pipeline/itself.py).

An interface: the guard of an installed package starts the *later* releases of this
module, by its name `updaterd.self_update` and with these arguments: `condemn`, state
directory, version, reason, Unix seconds. Neither may change, or guards that are out
cannot block a release any more.
"""

import sys
from pathlib import Path

from updaterd.core.settings import ITSELF
from updaterd.store.journal import Journal, Note
from updaterd.store.records import Release
from updaterd.store.schema import open_state

_CHOOSER = "_updaterd_site"  # the package's, imported when its interpreter starts


def waits() -> bool:
    """Tell whether this process would be another release if it started now."""
    chooser = sys.modules.get(_CHOOSER)
    return chooser is not None and chooser.choose() != chooser.CHOSEN


def condemn(state: Path, version: str, reason: str, *, now: float) -> int:
    """Block a release of updaterd on this machine; return how often it failed here.

    Args:
        state: directory of `state.db`.
        version: the release.
        reason: what the guard saw.
        now: Unix seconds.

    Raises:
        BrokenError: the database cannot be used.

    Power cut: blocked or not; the guard's own note stays until this has returned.
    """
    connection = open_state(state / "state.db")
    try:
        journal = Journal(connection)
        known = {r.version: r for r in journal.releases(ITSELF)}
        installed = journal.installed(ITSELF)
        seq = installed.seq if installed and installed.version == version else 0
        release = known.get(version, Release(version, seq, ""))
        note = Note(now=now, code="self_update_failed", reason=reason)
        failures = journal.block(ITSELF, release, note)
        journal.remember(
            ITSELF,
            decision="self_update_failed",
            decision_reason=f"{version} was left again: {reason}",
        )
    finally:
        connection.close()
    return failures


if __name__ == "__main__":
    _, command, folder, name, why, clock = sys.argv
    if command != "condemn":
        sys.exit(2)
    condemn(Path(folder), name, why, now=float(clock))
