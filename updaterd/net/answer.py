# SPDX-License-Identifier: Apache-2.0
"""What a request of the fetcher brings, whichever way it went."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from updaterd.core.dataclass import dataclass


class Answer(Protocol):
    """The head of an answer, and its body as it comes."""

    @property
    def status(self) -> int:
        """Return the HTTP status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers, names in lower case."""

    def read(self, patience_s: float) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            LostError: the connection broke.
            TransientError: nothing came in time (`timeout`).
        """

    def close(self) -> None:
        """Be done with it; whatever of the body was not read is given up."""


class Asking(Protocol):
    """Sends requests."""

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        patience_s: float,
    ) -> Answer:
        """Return the answer to one request; redirects are answers.

        Raises:
            LostError: no connection, or it broke.
            TransientError: no answer in time (`timeout`).
            BrokenError: it is not an address.
        """

    def close(self) -> None:
        """Close the connections; may be called twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer whose body is still on its way.

    Args:
        status: 200, or 206 when the range was honoured.
        headers: the answer's, names in lower case.
        chunks: the body; raises as `Fetcher.get` does.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
