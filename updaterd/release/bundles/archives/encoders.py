# SPDX-License-Identifier: Apache-2.0
"""How a deflate stream was made: the parameters of zlib that make it anew."""

from updaterd.artifact.archives.layout import MAX_ENCODERS
from updaterd.artifact.classic import CHUNK, Encoder
from updaterd.release.bundles.archives.finder import View

_LEVELS = (6, 9, 1, 8, 7, 5, 4, 3, 2)
_TRIED = tuple(
    Encoder(level, memory, strategy)
    for strategy, memory in ((0, 8), (0, 9), (1, 8), (1, 9))
    for level in _LEVELS
)
"""What is tried: zlib's own default first, then Python's and Java's best; 9 is what
libpng and Info-ZIP take for memory; 1 is libpng's strategy for filtered rows."""
_PATIENCE = 64  # streams in vain, and a quarter more than were found: others made them


class Encoders:
    """Finds encoders; the ones that were found are tried first.

    Attributes:
        table: those that were found.
    """

    def __init__(self) -> None:
        self.table: list[Encoder] = []
        self._order = list(_TRIED)
        self._patience = _PATIENCE

    def find(self, view: View, start: int, end: int, content: View) -> int | None:
        """Return the place in the table of what makes a stream anew.

        Args:
            view: what the stream is in.
            start: where it begins.
            end: where it ends.
            content: what is in it.

        Returns:
            None when nothing does that is tried: another library made it.
        """
        if self._patience <= 0:
            return None
        for number, encoder in enumerate(self._order):
            if _makes(encoder, view, start, end, content):
                self._order.insert(0, self._order.pop(number))
                self._patience = min(_PATIENCE, self._patience + 4)
                return self._place(encoder)
        self._patience -= 1
        return None

    def _place(self, encoder: Encoder) -> int | None:
        if encoder not in self.table:
            if len(self.table) == MAX_ENCODERS:
                return None
            self.table.append(encoder)
        return self.table.index(encoder)


def _makes(encoder: Encoder, view: View, start: int, end: int, content: View) -> bool:
    """Tell whether an encoder makes a stream, fed as machines feed it."""
    encoding = encoder.start()
    at = start
    for place in range(0, len(content), CHUNK):
        data = encoding.compress(content[place : place + CHUNK])
        if view[at : at + len(data)] != data:
            return False
        at += len(data)
    data = encoding.flush()
    return view[at : at + len(data)] == data and at + len(data) == end
