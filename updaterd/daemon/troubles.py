# SPDX-License-Identifier: Apache-2.0
"""Log what keeps going wrong when it begins and when it is over, not in between.

A look that fails is a warning, metadata that must not be believed an error; both say
`code`, `cause` and `remedy`, as does a feed that stays away. What goes on for hours is
one line at its begin, for an alert to hear, and one at its end, with how often it was
tried.
"""

from updaterd import log
from updaterd.core.dataclass import dataclass
from updaterd.store.records import Records

_PATIENCE_S = 60.0  # a server that restarts is back before
# Of a feed: what does not pass by itself, and is told at once.
_LASTING = frozenset({
    "tls",
    "proxy",
    "redirect",
    "content_type",
    "content_encoding",
    "protocol",
    "http_401",
    "http_403",
    "http_404",
})
_CRASHES = frozenset({"worker_died", "out_of_memory"})
_REFUSED = frozenset({"metadata_rollback", "below_floor"})  # decisions, not errors


def trouble(code: str, cause: str, remedy: str = "") -> dict[str, str]:
    """Return the fields of every warning and error: what it is, why, what to do.

    Args:
        code: as in `core/codes/`.
        cause: what happened.
        remedy: what to do; the code's own where nothing better is known.
    """
    from updaterd.core import codes  # noqa: PLC0415 - a quiet daemon never needs it

    return {"code": code, "cause": cause, "remedy": remedy or codes.remedy(code)}


@dataclass(slots=True)
class _Standing:
    """A trouble that was told and is not over."""

    code: str
    since: float
    times: int = 1


class Looks:
    """Tells of products whose looks fail."""

    def __init__(self) -> None:
        self._standing: dict[str, _Standing] = {}

    def note(self, records: Records, product: str, *, now: float) -> None:
        """Take note of how a look ended, and tell what is new about it.

        Raises:
            sqlite3.Error: the journal cannot be read.
        """
        code, cause = _trouble(records, product)
        standing = self._standing.get(product)
        if standing is not None and standing.code == code:
            standing.times += 1
            return
        logger = log.get()
        if not code:
            if standing is not None:
                del self._standing[product]
                logger.info(
                    "look_recovered",
                    product=product,
                    code=standing.code,
                    lasted_s=round(now - standing.since),
                    times=standing.times,
                )
            return
        from updaterd.core import codes  # noqa: PLC0415 - a quiet daemon never needs it

        self._standing[product] = _Standing(code, now)
        logger = logger.bind(product=product, **trouble(code, cause))
        if code in _CRASHES:
            logger.error("worker_died")
        elif codes.is_trust(code):
            logger.error("trust_failed")
        else:
            logger.warning("look_failed")


def _trouble(records: Records, product: str) -> tuple[str, str]:
    """Return the code and the text of what keeps a product from its target, or "".

    Raises:
        sqlite3.Error: the journal cannot be read.
    """
    facts = records.product(product)
    if facts.failures and facts.last_error_code:
        return facts.last_error_code, facts.last_error
    if facts.decision in _REFUSED:
        return facts.decision, facts.decision_reason
    return "", ""


class Outage:
    """Tells of a feed that stays away."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._standing: _Standing | None = None

    def failed(self, code: str, cause: str, *, now: float) -> None:
        """Take note of an attempt that failed."""
        self._began = now if self._began is None else min(self._began, now)
        if self._standing is not None and (self._standing.code == code):
            self._standing.times += 1
            return
        if code not in _LASTING and now - self._began < _PATIENCE_S:
            return
        log.get().warning(
            "feed_down", **trouble(code, cause), since_s=round(now - self._began)
        )
        times = self._standing.times + 1 if self._standing else 1
        self._standing = _Standing(code, self._began, times)

    def over(self, *, now: float) -> None:
        """Take note of a feed that is there."""
        standing, self._standing, self._began = self._standing, None, None
        if standing is not None:
            log.get().info(
                "feed_back",
                code=standing.code,
                lasted_s=round(now - standing.since),
                times=standing.times,
            )
