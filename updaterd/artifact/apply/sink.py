# SPDX-License-Identifier: Apache-2.0
"""Where new bytes go: one stream, cut into files by their lengths."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, compress

from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from updaterd.artifact.apply.output import Output, Outputs

    Progress = Callable[[int, int], None]
    """Called with bytes made and bytes in all."""


class Sink:
    """Writes consecutive files from one stream of bytes."""

    def __init__(
        self,
        outputs: Outputs,
        files: Sequence[tuple[str, int, int]],
        progress: Progress | None = None,
        done: Collection[str] = (),
    ) -> None:
        """Prepare for the files (path, length, mode), in stream order.

        Args:
            outputs: where they go.
            files: what to write.
            progress: told how far it is.
            done: paths of those that are there already.
        """
        self._outputs = outputs
        self._files = files
        self._next = 0
        self._open: Output | None = None
        self._remaining = 0
        self._offset = 0
        self._progress = progress
        self.total = sum(length for _, length, _ in files)
        self.written = 0
        self.count = 0
        self._done = done
        starts = accumulate((length for _, length, _ in files), initial=0)
        missing = (path not in self._done for path, _, _ in files)
        self._missing = [*compress(starts, missing), self.total]
        self._advance()

    def _advance(self) -> None:
        """Close the file that is full, and open the next that is not empty."""
        while not self._remaining:
            if self._open is not None:
                self._open.finish()
                self._open = None
            if self._next == len(self._files):
                return
            path, self._remaining, mode = self._files[self._next]
            if path not in self._done:
                self._open = self._outputs.create(path, mode)
                self.count += 1
            self._next += 1

    def unwanted(self) -> int:
        """Return how many bytes from here on need not be made: they are there."""
        if not self._done or self._open is not None:
            return 0
        return self._missing[bisect_left(self._missing, self._offset)] - self._offset

    def leave(self, count: int) -> None:
        """Pass over `count` of the bytes that are unwanted."""
        self._move(count)
        while count:
            step = min(count, self._remaining)
            self._remaining -= step
            count -= step
            self._advance()

    def write(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the stream.

        Raises:
            MalformedError: there are more than the files hold.
            OSError: the disk refused.
        """
        self._move(len(data))
        if len(data) < self._remaining and self._open is not None:
            self._open.write(data)
            self._remaining -= len(data)
            self.written += len(data)
        else:
            self._split(memoryview(data))
        if self._progress is not None:
            self._progress(self._offset, self.total)

    def _move(self, count: int) -> None:
        self._offset += count
        if self._offset > self.total:
            raise MalformedError("the bundle makes more bytes than its files hold")

    def _split(self, view: memoryview) -> None:
        while view and self._remaining:
            piece = view[: self._remaining]
            if self._open is not None:
                self._open.write(piece)
                self.written += len(piece)
            self._remaining -= len(piece)
            view = view[len(piece) :]
            self._advance()

    def finish(self) -> None:
        """Check that every file got all its bytes.

        Raises:
            MalformedError: it did not.
        """
        if self._offset != self.total:
            raise MalformedError("the bundle makes fewer bytes than its files hold")
