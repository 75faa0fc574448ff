# SPDX-License-Identifier: Apache-2.0
"""The inbox: what the feed said, kept until it has been acted on.

The event's row and the cursor (`Last-Event-ID`) are one transaction, and a row is
unique on (feed, event id): whatever breaks, an event is neither lost nor taken
twice. An id that comes again with other data, or from a feed that counts anew, is
another event (`Inbox.opened`). Many events of one product are one `Pending`: a flood
starts no flood.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from updaterd.core.dataclass import dataclass
from updaterd.core.events import (
    Hello,
    Message,
    MetadataHint,
    Other,
    PushedMetadata,
    Resync,
    UpdateHint,
    parse,
)
from updaterd.core.sse import Event
from updaterd.core.text import printable
from updaterd.errors import MalformedError
from updaterd.store import concern, eviction
from updaterd.store.schema import transaction

_KEPT_DATA = 4096  # characters of each event, for people; actions need none of it
_LONGEST_KEY = 256
_LONGEST_CURSOR = 4096  # characters: a longer id could not be sent back

_INSERT = """
    INSERT INTO inbox (feed, event_id, event, product, channel, urgency, version,
                       spread_s, data, received_at, state, reason, digest, steady)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What one event came to.

    Attributes:
        kind: "update", "metadata", "resync" (all three: something is pending),
            "hello", "duplicate", "quarantined" or "other" (not for this machine).
        products: which configured products now have something pending.
        urgency: "normal" or "critical".
        pushed: signed metadata that came along, unverified.
        reason: why it was quarantined, or why the feed asks for a resync.
        code: stable name of why it was quarantined; "" when it was not.
    """

    kind: str
    products: frozenset[str] = frozenset()
    urgency: str = "normal"
    pushed: PushedMetadata | None = None
    reason: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """All that waits for one product, as one.

    Attributes:
        product: a configured product.
        up_to_row: the newest waiting row; hand it to `Inbox.done`.
        urgency: "critical" when any of the rows is.
        received_at: when the oldest came, Unix seconds.
        version: the newest label that an event named: for people.
        spread_s: over how many seconds the fleet should come, the newest's word.
        pushed: metadata that came with the newest; None after a restart.
    """

    product: str
    up_to_row: int
    urgency: str
    received_at: float
    version: str | None = None
    spread_s: int = 0
    pushed: PushedMetadata | None = None


class Inbox:
    """The inbox of one feed.

    Args:
        connection: `state.db`, from `store.schema.open_state`.
        feed: the feed's address: the name its ids are unique under.
        products: channel of each configured product.
        cap: most rows kept, whatever the feed sends.
        steady: tells the seconds of a clock that nobody sets.

    Raises:
        ValueError: `cap` is too small for so many products.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        feed: str,
        products: Mapping[str, str],
        cap: int = 1000,
        steady: Callable[[], float] | None = None,
    ) -> None:
        if cap < 2 * len(products) + 2:
            raise ValueError(
                f"a cap of {cap} is too small for {len(products)} products"
            )
        self._connection = connection
        self._feed = feed
        self._products = dict(products)
        self._cap = cap
        self._steady = steady
        self._pushed: dict[str, PushedMetadata] = {}
        concern.settle_others(connection, self._products)
        self._rows = self._count("1")  # an upper bound, see eviction.py
        self._stream_from = 0  # rows up to here came with earlier streams
        self._resumed_after = ""

    def cursor(self) -> str | None:
        """Return the id after which the feed should continue."""
        row = self._connection.execute(
            "SELECT last_event_id FROM cursor WHERE feed = ?", (self._feed,)
        ).fetchone()
        return None if row is None else str(row[0])

    def opened(self, resumed_after: str) -> None:
        """Note that a stream has opened, which was asked to go on after an id.

        What it sends again is a repeat; what an earlier stream had sent, and was not
        asked for, is news: the ids of a feed that counts in memory start over.

        Args:
            resumed_after: the `Last-Event-ID` it was asked with; "" for none.
        """
        (newest,) = self._connection.execute("SELECT max(row) FROM inbox").fetchone()
        self._stream_from = newest or 0
        self._resumed_after = resumed_after

    def advance(self, last_event_id: str, *, now: float) -> None:
        """Move the cursor without an event (an `id:` alone in its block).

        Power cut: as before, or moved.
        """
        with transaction(self._connection):
            self._move(last_event_id, now)

    def accept(self, event: Event, *, now: float) -> Accepted:
        """Take one event in: its row and the cursor, or neither.

        Raises:
            sqlite3.Error: the disk refused; the cursor stands, the event comes again.

        Power cut: both or neither.
        """
        return self.accept_all((event,), now=now)[0]

    def accept_all(self, events: Sequence[Event], *, now: float) -> list[Accepted]:
        """Take several events in, in one transaction.

        Raises:
            sqlite3.Error: as `accept`.

        Power cut: all of them with the cursor, or none.
        """
        if not events:
            return []
        with transaction(self._connection):
            answers = [self._insert(event, now) for event in events]
            self._move(events[-1].id, now)
            rows = eviction.evict(
                self._connection, came=len(events), rows=self._rows, cap=self._cap
            )
        self._rows = rows
        for accepted in answers:
            for product in accepted.products:
                if accepted.pushed is None:
                    self._pushed.pop(product, None)
                else:
                    self._pushed[product] = accepted.pushed
        return answers

    def pending(self) -> tuple[Pending, ...]:
        """Return what waits, one for each configured product that has any."""
        return tuple(filter(None, map(self.waiting, sorted(self._products))))

    def done(self, product: str, up_to_row: int) -> None:
        """Settle what waited for `product`; newer rows go on waiting.

        Power cut: as before (the product is looked at once more), or settled.
        """
        with transaction(self._connection) as db:
            db.execute(
                "INSERT INTO inbox_mark VALUES (?, ?) ON CONFLICT (product) "
                "DO UPDATE SET row = max(row, excluded.row)",
                (product, up_to_row),
            )
            db.execute(
                "UPDATE inbox SET state = 'done' "
                "WHERE state = 'pending' AND product = ? AND row <= ?",
                (product, up_to_row),
            )
            marks = [self._mark(name) for name in self._products]
            db.execute(  # what concerns every product waits for the last of them
                "UPDATE inbox SET state = 'done' "
                "WHERE state = 'pending' AND product IS NULL AND row <= ?",
                (min(marks, default=up_to_row),),
            )
        if self.waiting(product) is None:
            self._pushed.pop(product, None)

    def depth(self) -> int:
        """Return how many rows wait."""
        return self._count("state = 'pending'")

    def quarantined(self) -> int:
        """Return how many malformed events are kept."""
        return self._count("state = 'quarantined'")

    # ---- inside a transaction ---------------------------------------------------

    def _insert(self, event: Event, now: float) -> Accepted:
        """Insert what the event asks for, and tell what it was."""
        hint = UpdateHint()
        try:
            message = parse(event.event, event.data)
        except MalformedError as error:
            accepted = Accepted(
                kind="quarantined",
                reason=printable(str(error), longest=500),
                code=error.code,
            )
        else:
            accepted = self._judge(message)
            if isinstance(message, UpdateHint):
                hint = message
            elif isinstance(message, Resync):
                # Its id is the feed's present one, which an event may bear as well.
                event = event._replace(identified=False)
        if accepted.kind in {"hello", "other"}:
            return accepted  # the cursor moves, nothing waits
        if not self._row(event, hint, accepted, now):
            return Accepted(kind="duplicate")
        if hint.product in accepted.products and hint.version is not None:
            concern.announce(self._connection, hint.product, hint.version, now)
        return accepted

    def _judge(self, message: Message) -> Accepted:
        match message:
            case UpdateHint():
                concerned = self._concerned(message)
                return Accepted(
                    kind="update" if concerned else "other",
                    products=concerned,
                    urgency=message.urgency,
                    pushed=message.pushed,
                )
            case MetadataHint(pushed=pushed):
                return Accepted(
                    kind="metadata", products=frozenset(self._products), pushed=pushed
                )
            case Resync(reason=reason):
                return Accepted(
                    kind="resync", products=frozenset(self._products), reason=reason
                )
            case Hello():
                return Accepted(kind="hello")
            case Other():
                return Accepted(kind="other")

    def _concerned(self, hint: UpdateHint) -> frozenset[str]:
        return frozenset(
            product
            for product, channel in self._products.items()
            if hint.product in (None, product) and hint.channel in (None, channel)
        )

    def _row(
        self, event: Event, hint: UpdateHint, accepted: Accepted, now: float
    ) -> bool:
        """Insert the event's row; False when it is there already."""
        key = event.id if event.identified and event.id else None
        if key is not None and len(key) > _LONGEST_KEY:
            key = "sha256:" + hashlib.sha256(key.encode()).hexdigest()
        digest = _digest(event)
        if key is not None and not self._is_repeat(key, event.id, digest):
            self._connection.execute(  # the id means the newer event from now on
                "UPDATE inbox SET event_id = NULL WHERE feed = ? AND event_id = ?",
                (self._feed, key),
            )
        done = self._connection.execute(
            _INSERT,
            (
                self._feed,
                key,
                event.event[:_LONGEST_KEY],
                hint.product,
                hint.channel,
                hint.urgency,
                hint.version,
                hint.spread_s,
                event.data[:_KEPT_DATA],
                now,
                "quarantined" if accepted.kind == "quarantined" else "pending",
                accepted.reason[:_KEPT_DATA],
                digest,
                self._steady() if self._steady else None,
            ),
        )
        self._rows += done.rowcount
        return done.rowcount == 1

    def _is_repeat(self, key: str, event_id: str, digest: str) -> bool:
        """Tell whether the event that bears this id already is this very one."""
        known = self._connection.execute(
            "SELECT row, digest FROM inbox WHERE feed = ? AND event_id = ?",
            (self._feed, key),
        ).fetchone()
        if known is None:
            return False
        if known[1] not in {digest, ""}:  # "": an older updaterd has stored it
            return False
        return known[0] > self._stream_from or event_id == self._resumed_after

    def _move(self, last_event_id: str, now: float) -> None:
        if len(last_event_id) > _LONGEST_CURSOR:
            return  # it could not be sent back: better go on after the one before
        if not last_event_id:  # the feed has reset it (an empty `id:`)
            self._connection.execute("DELETE FROM cursor WHERE feed = ?", (self._feed,))
            return
        self._connection.execute(
            "INSERT INTO cursor (feed, last_event_id, updated_at) VALUES (?, ?, ?) "
            "ON CONFLICT (feed) DO UPDATE "
            "SET last_event_id = excluded.last_event_id, "
            "updated_at = excluded.updated_at",
            (self._feed, last_event_id, now),
        )

    # ---- reading ----------------------------------------------------------------

    def waiting(self, product: str) -> Pending | None:
        """Return what waits for one product, as one; None for nothing."""
        rows = self._connection.execute(
            "SELECT row, urgency, received_at, version, spread_s FROM inbox "
            "WHERE state = 'pending' AND (product = ? OR product IS NULL) "
            "AND row > ? ORDER BY row",
            (product, self._mark(product)),
        ).fetchall()
        if not rows:
            return None
        labels = [version for _, _, _, version, _ in rows if version is not None]
        return Pending(
            product=product,
            up_to_row=rows[-1][0],
            urgency="critical" if any(r[1] == "critical" for r in rows) else "normal",
            received_at=rows[0][2],
            version=labels[-1] if labels else None,
            spread_s=rows[-1][4],
            pushed=self._pushed.get(product),
        )

    def _mark(self, product: str) -> int:
        row = self._connection.execute(
            "SELECT row FROM inbox_mark WHERE product = ?", (product,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _count(self, where: str) -> int:
        query = f"SELECT count(*) FROM inbox WHERE {where}"  # noqa: S608 # our words
        return int(self._connection.execute(query).fetchone()[0])


def _digest(event: Event) -> str:
    """Return what is the same for a repeat, and for no other event of that id."""
    content = f"{event.event}\n{event.data}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()[:32]
