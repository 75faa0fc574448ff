# SPDX-License-Identifier: Apache-2.0
"""New archives deflated as they are made, front to back, in bounded memory."""

from __future__ import annotations

from updaterd.artifact.apply.output import Output
from updaterd.artifact.archives.layout import CLOSE, encoder_of
from updaterd.artifact.classic import CHUNK
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from updaterd.artifact.archives.scratch import Scratch
    from updaterd.artifact.classic import Encoder


class _Encoding:
    """A stream that is being deflated: fed by whole chunks, however bytes come."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder.start()
        self._waiting = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Yield what is ready of the stream."""
        self._waiting += data
        at = 0
        while len(self._waiting) - at >= CHUNK:
            yield self._encoder.compress(self._waiting[at : at + CHUNK])
            at += CHUNK
        del self._waiting[:at]

    def end(self) -> Iterator[bytes]:
        """Yield the rest of the stream."""
        yield self._encoder.compress(self._waiting)
        yield self._encoder.flush()


class Deflated(Output):
    """A file that is written inflated: what `Sink` takes for any other."""

    def __init__(
        self,
        output: Output | None,
        steps: Sequence[int],
        encoders: Sequence[Encoder],
        length: int,
        copy: Scratch | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            output: of the file; None when it is there already.
            steps: see `layout.Archive`.
            encoders: the table.
            length: of the file.
            copy: gets the inflated bytes too.
        """
        self._output = output
        self._steps = iter(steps)
        self._encoders = encoders
        self._room = length
        self._copy = copy
        self._stack: list[_Encoding] = []
        self._rest = 0
        self._advance()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next inflated bytes: no more than there are in the steps.

        Raises:
            MalformedError: the file becomes longer than it may.
            OSError: the disk refused.
        """
        if self._copy is not None:
            self._copy.write(data)
        if self._output is None:
            return
        view = memoryview(data)
        while view:
            piece = view[: self._rest]
            self._deflate(len(self._stack), piece)
            self._rest -= len(piece)
            view = view[len(piece) :]
            self._advance()

    def _advance(self) -> None:
        while not self._rest:
            step = next(self._steps, None)
            if step is None:
                return
            if step >= 0:
                self._rest = step
            elif step == CLOSE:
                for data in self._stack.pop().end():
                    self._deflate(len(self._stack), data)
            else:
                self._stack.append(_Encoding(self._encoders[encoder_of(step)]))

    def _deflate(self, depth: int, data: bytes | memoryview) -> None:
        """Take bytes that go into so many streams.

        Raises:
            MalformedError: the file becomes longer than it may.
            OSError: the disk refused.
        """
        if depth:
            for packed in self._stack[depth - 1].feed(data):
                self._deflate(depth - 1, packed)
            return
        self._room -= len(data)
        if self._room < 0:
            raise MalformedError("archives: one becomes longer than its file")
        if self._output is not None:
            self._output.write(data)

    def finish(self) -> None:
        """Close the file.

        Raises:
            OSError: the disk refused; it is closed.
        """
        if self._output is not None:
            self._output.finish()

    def abandon(self) -> None:
        """Close the file as it is; harmless when it is closed."""
        if self._output is not None:
            self._output.abandon()
