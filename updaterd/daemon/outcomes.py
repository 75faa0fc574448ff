"""How deployments ended, as one event each: what an operator's alert listens to."""

from updaterd import log
from updaterd.core.lifecycle import State
from updaterd.store.records import Deployment, Records

_LOOK_BACK = 5  # a run ends what a dead one left, and its own


def ended(records: Records, product: str) -> frozenset[int]:
    """Return which of the product's last deployments have ended.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    found = records.history(product, limit=_LOOK_BACK)
    return frozenset(one.id for one in found if one.ended_at is not None)


def tell(records: Records, product: str, before: frozenset[int]) -> None:
    """Log the deployments that have ended since `before` was taken, oldest first.

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    now = ended(records, product)
    for one in reversed(records.history(product, limit=_LOOK_BACK)):
        if one.id in now - before:
            _tell(one)


def _tell(one: Deployment) -> None:
    logger = log.get().bind(
        product=one.product,
        release=one.version,
        from_release=one.from_version,
        state=str(one.state),
        code=one.code,
        reason=one.reason,
    )
    match one.state:
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
