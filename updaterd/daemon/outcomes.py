# SPDX-License-Identifier: Apache-2.0
"""Log one event for each deployment that ended, for an operator's alerts."""

import sqlite3

from updaterd import log
from updaterd.core.lifecycle import State
from updaterd.daemon.troubles import trouble
from updaterd.store.journal import Journal, Note
from updaterd.store.records import Deployment, Records

_STOPPED = "system_stopping"  # as install/going_down.py
_LOOK_BACK = 5  # a run ends what a dead one left, and its own


def ended(records: Records, product: str) -> frozenset[int]:
    """Return which of the product's last deployments have ended.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    rows = records.history(product, limit=_LOOK_BACK)
    return frozenset(row.id for row in rows if row.ended_at is not None)


def tell(records: Records, product: str, before: frozenset[int]) -> None:
    """Log the deployments that have ended since `before` was taken, oldest first.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    now = ended(records, product)
    for row in reversed(records.history(product, limit=_LOOK_BACK)):
        if row.id in now - before:
            _tell(row)


def excuse(journal: Journal, *, now: float) -> None:
    """Journal of trials that nobody ended: it was the daemon that was told to end.

    When the workers are gone, and the machine perhaps goes down.

    Power cut: the trial counts as one that nobody watched.
    """
    try:
        for deployment in journal.open_deployments():
            if deployment.state is State.PROBATION and deployment.code != _STOPPED:
                reason = (
                    f"updaterd was told to stop while {deployment.version} was on trial"
                )
                note = Note(now=now, code=_STOPPED, reason=reason, boot=deployment.boot)
                journal.move(deployment.id, State.PROBATION, note)
    except sqlite3.Error as error:
        log.get().error("journal_refused", **trouble("journal_refused", str(error)))


def _tell(deployment: Deployment) -> None:
    logger = log.get().bind(
        product=deployment.product,
        release=deployment.version,
        from_release=deployment.from_version,
        state=str(deployment.state),
        code=deployment.code,
        reason=deployment.reason,
    )
    if deployment.state in (State.ROLLED_BACK, State.REJECTED, State.FAILED):
        logger = logger.bind(**trouble(deployment.code, deployment.reason))
    match deployment.state:
        case State.INSTALLED:
            logger.info("release_installed")
        case State.ROLLED_BACK:
            logger.warning("release_rolled_back")
        case State.REJECTED:
            logger.warning("release_rejected")
        case State.FAILED:
            logger.error("release_failed")
        case _:
            logger.info("release_skipped")
