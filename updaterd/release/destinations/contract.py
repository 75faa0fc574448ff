# SPDX-License-Identifier: Apache-2.0
"""What every destination does; `tests/unit/release/destinations` holds each to it.

A destination knows nothing of releases: it keeps files by their path in the
repository. Two things it must do at once or not at all: create a file where none is,
and replace one that is still what was read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from updaterd.errors import BrokenError, TransientError

PATIENCE_S = 120.0
"""How long a request is tried again by itself, with growing pauses."""

Sent = Callable[[int], None]
"""Told how many bytes more have gone out."""


class UnreachableError(TransientError):
    """A destination does not answer, or not well; it may later."""

    code = "destination_unreachable"


class RefusedError(BrokenError):
    """A destination refuses: its credentials, its rights, its name."""

    code = "destination_refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file at a destination.

    Attributes:
        size: its bytes.
        changed: when it was written, in seconds since 1970.
    """

    size: int
    changed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The bytes of a file, and what tells whether it is still the same.

    Attributes:
        data: all of it.
        mark: the destination's own (an ETag, a generation).
    """

    data: bytes
    mark: object


class Destination(Protocol):
    """Where a repository is copied to.

    Every method raises `UnreachableError` when it cannot be done now, after it was
    tried again for a while, and `RefusedError` when a person has to act.
    """

    address: str

    def stored(self) -> dict[str, Stored]:
        """Return what is there, by path."""
        ...

    def read(self, path: str, limit: int) -> Held | None:
        """Return a file of at most `limit` bytes; None: there is none.

        Raises:
            UnreachableError: or it is larger.
        """
        ...

    def send(self, path: str, source: Path, sent: Sent) -> None:
        """Write a file whole, whatever is there, in bounded memory.

        Power cut: the old one, if any, or the new one.
        """
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a file where none is, at once; False: one is there.

        Power cut: it is there whole, or not.
        """
        ...

    def replace(self, path: str, data: bytes, before: Held | None) -> bool:
        """Replace what was read (None: nothing) at once; False: it is another now.

        Power cut: the old one or the new one.
        """
        ...

    def delete(self, path: str) -> None:
        """Delete a file; it may be gone already.

        Power cut: it is there or it is not.
        """
        ...
