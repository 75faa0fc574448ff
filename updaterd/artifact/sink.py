"""Where new bytes go: one stream, cut into files by their lengths, each hashed."""

from collections.abc import Callable, Sequence

from updaterd.artifact.output import Destination, Output
from updaterd.errors import MalformedError

Progress = Callable[[int, int], None]
"""Called with bytes made and bytes in all."""


class Sink:
    """Writes consecutive files from one stream of bytes."""

    def __init__(
        self,
        destination: Destination,
        files: Sequence[tuple[str, int, int]],
        progress: Progress | None = None,
    ) -> None:
        """Prepare for the files (path, length, mode), in stream order."""
        self._destination = destination
        self._files = files
        self._next = 0
        self._open: Output | None = None
        self._left = 0
        self._progress = progress
        self.digests: list[str] = []
        self.total = sum(length for _, length, _ in files)
        self.written = 0
        self._advance()

    def _advance(self) -> None:
        """Close the file that is full, and open the next that is not empty."""
        while not self._left:
            if self._open is not None:
                self.digests.append(self._open.close())
                self._open = None
            if self._next == len(self._files):
                return
            path, self._left, mode = self._files[self._next]
            self._open = self._destination.create(path, mode)
            self._next += 1

    def write(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            MalformedError: there are more than the files hold.
            OSError: the disk refused.
        """
        self.written += len(data)
        if self.written > self.total:
            raise MalformedError("the bundle makes more bytes than its files hold")
        if len(data) < self._left and self._open is not None:
            self._open.write(data)
            self._left -= len(data)
        else:
            self._split(memoryview(data))
        if self._progress is not None:
            self._progress(self.written, self.total)

    def _split(self, view: memoryview) -> None:
        while view and self._open is not None:
            piece = view[: self._left]
            self._open.write(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
            self._advance()

    def finish(self) -> None:
        """Check that every file got all its bytes.

        Raises:
            MalformedError: it did not.
        """
        if self.written != self.total:
            raise MalformedError("the bundle makes fewer bytes than its files hold")
