# SPDX-License-Identifier: Apache-2.0
"""What time it is, when the machine's clock may be wrong."""

from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Timestamp

from updaterd.core.dataclass import dataclass

BUILT = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time to this version of updaterd."""
CLOCK_SLACK = timedelta(days=1)
SIGNED_AT = "x-updaterd-signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something to tell a person although the refresh succeeded."""

    code: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The time to judge by, and what is odd about the machine's own."""

    time: datetime | None
    warnings: tuple[Notice, ...] = ()

    @classmethod
    def judge(
        cls, now: datetime | None, floor: datetime | None, *, demo: bool
    ) -> "Clock":
        """Return `now`, or the latest time that has surely passed if that is later."""
        if now is None:
            return cls(time=None)
        bounds = [bound for bound in (floor, None if demo else BUILT) if bound]
        lowest = max(bounds, default=now)
        if now >= lowest:
            return cls(time=now)
        warnings: tuple[Notice, ...] = ()
        if lowest - now > CLOCK_SLACK:
            warnings = (_suspect(now, f"it was already {lowest:%Y-%m-%d %H:%M} UTC"),)
        return cls(time=lowest, warnings=warnings)


def moment(seconds: float) -> datetime | None:
    """Return the time that was signed; None: none was, or none that can be."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (OverflowError, ValueError, OSError):
        return None


def signed_at(timestamp: Timestamp) -> float:
    """Return when a timestamp was signed, Unix seconds; 0.0: it does not say."""
    try:
        text = str(timestamp.unrecognized_fields[SIGNED_AT])
        return datetime.fromisoformat(text).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0.0


def _suspect(now: datetime, why: str) -> Notice:
    return Notice(
        code="clock_suspect",
        text=f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, but {why}: set it, "
        "or expired metadata may look fresh",
    )


def ahead(timestamp: Timestamp, now: datetime | None) -> tuple[Notice, ...]:
    """Warn when the timestamp was signed in this machine's future."""
    try:
        signed = datetime.fromisoformat(str(timestamp.unrecognized_fields[SIGNED_AT]))
        if now is None or signed - now <= CLOCK_SLACK:
            return ()
    except (KeyError, ValueError, TypeError):
        return ()
    return (_suspect(now, f"the timestamp was signed {signed:%Y-%m-%d %H:%M} UTC"),)
