# SPDX-License-Identifier: Apache-2.0
"""Documents that a newer publisher signs: what may be ignored, and what must not be.

A member that nobody knows is ignored, so that documents can grow. One without which
the rest would be misread is named in `must_understand`: who does not know it passes
the document over, as one that is not for this updaterd, and not as a broken one. Such
a document says `schema: 2`, so that an updaterd that does not know `must_understand`
itself refuses it.
"""

from collections.abc import Collection, Sequence

from updaterd.core.json_fields import Fields
from updaterd.errors import NotUnderstoodError

PLAIN, MARKED = 1, 2
_MOST = 64


def marks(must_understand: Sequence[str]) -> dict[str, object]:
    """Return the members that say what a reader has to know."""
    if not must_understand:
        return {"schema": PLAIN}
    return {"schema": MARKED, "must_understand": list(must_understand)}


def needed(item: Fields) -> tuple[str, ...]:
    """Return the names of members that a reader has to know.

    Raises:
        MalformedError: the list of them makes no sense.
    """
    return item.texts("must_understand", most=_MOST)


def check_understood(item: Fields, known: Collection[str]) -> None:
    """Check that a document is for this updaterd.

    Args:
        item: the document, or no more than `schema` and `must_understand` of it.
        known: names of members that this updaterd knows.

    Raises:
        MalformedError: the two make no sense.
        NotUnderstoodError: it is not.
    """
    schema, names = item.integer("schema", low=1), needed(item)
    if schema > MARKED or (schema == MARKED and not names):
        raise NotUnderstoodError(
            f"{item.where} has schema {schema}, this updaterd reads {PLAIN}, and "
            f"{MARKED} with `must_understand`",
            means="it is passed over; what is installed goes on running",
            do="update updaterd itself",
            code="newer_schema",
        )
    foreign = [name for name in names if name not in known]
    if foreign:
        raise NotUnderstoodError(
            f"{item.where} must not be used by an updaterd that does not know "
            f"{', '.join(map(repr, foreign))!s:.200}",
            means="it is passed over; what is installed goes on running",
            do="update updaterd itself",
        )
