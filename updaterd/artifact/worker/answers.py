# SPDX-License-Identifier: Apache-2.0
"""What the bundle opener may say: numbers of known size, and no words.

It could be anybody's after its first look at a bundle. So it says by number what became
of its job, and its parent finds the words: no byte that it chose reaches a log, a
terminal or `status.json`. Frames on its stdout, each a letter and numbers:

    C  layers of its cage that are in force, before it looks at the bundle
    P  bytes made, bytes in all
    E  what went wrong: place in CODES, entry of the listing, errno, module, line; used
    M  what it made: bytes, files; used; places of short old files, a tree script
"""

from __future__ import annotations

import struct

from updaterd.artifact.job import Made, Used
from updaterd.artifact.worker.confine import Confined
from updaterd.core.frozen import record
from updaterd.errors import MalformedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CODES = (
    "malformed", "bad_bundle", "wrong_tree", "too_large", "unknown_codec",
    "hash_mismatch", "memory_limit", "rejected", "disk_full", "disk_error",
    "worker_crashed", "bad_path", "bad_link", "too_deep",
)  # fmt: skip
"""What can go wrong in there, by `core.codes`."""

MODULES = (
    "blocks", "bsdiff", "child", "codecs", "compiled", "container", "engine", "folders",
    "image", "listed", "loops", "operations", "output", "patch", "projection",
    "projector", "script", "sink", "sources", "sparse", "stream", "tree", "unpack",
    "varint",
)  # fmt: skip
"""Where: for who looks into it."""

NOWHERE = 0xFFFFFFFF
MAX_SCRIPT = 16 * 2**20
"""Most bytes of a script: as `script.MAX_BYTES`, which costs more to import."""
MAX_SHORT = 1 << 12
"""Most short files that are told: those beyond are found by their hash."""

_CAGE = struct.Struct("<cBB")
_PROGRESS = struct.Struct("<cQQ")
_ERROR = struct.Struct("<cBIHBIQQ")
_MADE = struct.Struct("<cQIQQII")
_SIZES = {b"C": _CAGE, b"P": _PROGRESS, b"E": _ERROR, b"M": _MADE}
_MOST = 2**64 - 1


@record
class Failure:
    """What went wrong, by number.

    Attributes:
        code: of CODES.
        entry: place in the listing of what it went wrong with, or NOWHERE.
        errno: of the system, or 0.
        module: of MODULES, where it was noticed; "" elsewhere.
        line: in it.
        used: what the process took.
    """

    code: str
    entry: int
    errno: int
    module: str
    line: int
    used: Used


@record
class Done:
    """The job is done: what was made, and what that took."""

    result: Made
    used: Used


def cage(confined: Confined) -> bytes:
    """Return the frame that says which layers are in force."""
    flags = confined.seccomp | confined.namespaces << 1
    return _CAGE.pack(b"C", min(confined.landlock_abi, 255), flags)


def progress(done: int, total: int) -> bytes:
    """Return the frame that says how far it is."""
    return _PROGRESS.pack(b"P", min(done, _MOST), min(total, _MOST))


def completed(result: Made, used: Used) -> bytes:
    """Return the frame that says what was made."""
    short = result.short[:MAX_SHORT]
    head = _MADE.pack(
        b"M",
        min(result.bytes_written, _MOST),
        result.files_changed,
        int(used.cpu_s * 1e6),
        used.peak_rss,
        len(short),
        len(result.script),
    )
    return head + struct.pack(f"<{len(short)}I", *short) + result.script


def failure(
    error: BaseException, code: str, used: Used, *, entry: int = NOWHERE
) -> bytes:
    """Return the frame that says what went wrong.

    Args:
        error: where it was noticed is told by its trace.
        code: of CODES; one that is not among them is told as the first.
        used: what the process took.
        entry: place in the listing of what it went wrong with.
    """
    module, line = "", 0
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename.rpartition("/")[2].removesuffix(".py")
        if name in MODULES:
            module, line = name, trace.tb_lineno
        trace = trace.tb_next
    number = getattr(error, "errno", None)
    return _ERROR.pack(
        b"E",
        CODES.index(code) if code in CODES else 0,
        entry if 0 <= entry < NOWHERE else NOWHERE,
        number if isinstance(number, int) and 0 <= number < 0x10000 else 0,
        MODULES.index(module) if module else 0xFF,
        line,
        int(used.cpu_s * 1e6),
        used.peak_rss,
    )


class Reader:
    """Frames put together from the pieces in which they come; what is kept is bounded.

    Attributes:
        confined: layers of the cage; None until it says so.
        end: how the job ended; None until it says so, and nothing is heard after that.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._buffer = bytearray()
        self.confined: Confined | None = None
        self.end: Done | Failure | None = None

    @property
    def is_over(self) -> bool:
        """Whether it said how the job ended."""
        return self.end is not None

    def feed(self, data: bytes) -> Sequence[tuple[int, int]]:
        """Take the next bytes; return the progress that they tell.

        Raises:
            MalformedError: they are no frames.
        """
        out: list[tuple[int, int]] = []
        if self.is_over:
            return out
        self._buffer += data
        at = 0
        while at < len(self._buffer) and not self.is_over:
            shape = _SIZES.get(bytes(self._buffer[at : at + 1]))
            if shape is None:
                raise MalformedError("the worker answers in another language")
            if len(self._buffer) - at < shape.size:
                break
            kind, *numbers = shape.unpack_from(self._buffer, at)
            if kind == b"P":
                out.append((min(numbers), numbers[1]))
            size = shape.size + _tail(kind, numbers)
            if len(self._buffer) - at < size:
                break
            self._take(kind, numbers, self._buffer[at + shape.size : at + size])
            at += size
        del self._buffer[:at]
        return out

    def _take(self, kind: bytes, numbers: Sequence[int], tail: bytearray) -> None:
        """Take one whole frame.

        Raises:
            MalformedError: a number stands for nothing.
        """
        if kind == b"C":
            abi, flags = numbers
            if self.confined is None:
                self.confined = Confined(abi, bool(flags & 1), bool(flags & 2))
        elif kind == b"E":
            self.end = _failure(numbers)
        elif kind == b"M":
            shorts = numbers[4]
            self.end = Done(
                Made(
                    bytes_written=numbers[0],
                    files_changed=numbers[1],
                    short=struct.unpack_from(f"<{shorts}I", tail),
                    script=bytes(tail[4 * shorts :]),
                ),
                Used(numbers[2] / 1e6, numbers[3]),
            )


def _tail(kind: bytes, numbers: Sequence[int]) -> int:
    """Return how many bytes follow the numbers of a frame.

    Raises:
        MalformedError: more than there may be.
    """
    if kind != b"M":
        return 0
    shorts, script = numbers[4:]
    if shorts > MAX_SHORT or script > MAX_SCRIPT:
        raise MalformedError("the worker says more than it may")
    return 4 * shorts + script


def _failure(numbers: Sequence[int]) -> Failure:
    """Return what a frame says went wrong.

    Raises:
        MalformedError: a number stands for nothing.
    """
    code, entry, errno, module, line, cpu, peak = numbers
    if code >= len(CODES):
        raise MalformedError("the worker names an error that there is not")
    return Failure(
        code=CODES[code],
        entry=entry,
        errno=errno,
        module=MODULES[module] if module < len(MODULES) else "",
        line=line,
        used=Used(cpu / 1e6, peak),
    )
