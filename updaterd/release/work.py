"""What takes memory when a delta is made, done in a process of its own.

    python -c START ROOTS < task > answer      (JSON both ways; bulk goes through files)

Matching takes many times its input, and packing up to 96 MiB: as processes they run
on all cores, and give their memory back to the system when they end. They end with
who asked for them, however that ends.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import updaterd
from updaterd.errors import BrokenError
from updaterd.release import compress, matching
from updaterd.release.runs import Runs

Range = tuple[str, int, int]
"""Path, place and length of bytes of a file."""

SMALL = 1 << 20
"""Bytes below which a process of its own costs more than the work."""
_PIECE = 1 << 20
_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}
_START = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10));"
    "import updaterd.release.work as work; work.main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Match one group; its covers and streams go to files beside `out`."""

    old: Sequence[Range]
    new: Sequence[Range]
    matcher: str
    out: str

    @property
    def size(self) -> int:
        """Return the bytes it is about."""
        return sum(count for _, _, count in (*self.old, *self.new))

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory it takes."""
        old, new = (sum(c for _, _, c in part) for part in (self.old, self.new))
        return matching.memory(self.matcher, old, new)

    def perform(self) -> list[int]:
        """Return how many zeros the diff ends with.

        Raises:
            BrokenError: a file changed meanwhile, or the matcher is not there.
            OSError: the disk refused.

        Power cut: nothing reads these files again.
        """
        old, new = _bytes(self.old), _bytes(self.new)
        covers = list(matching.find(old, new, self.matcher))
        diff, extra = matching.streams(old, new, covers)
        del old, new
        _write(self.out, "extra", extra)
        del extra
        _write(self.out, "covers", array("Q", (n for c in covers for n in c)))
        runs = Runs()
        with Path(f"{self.out}.changes").open("wb") as file:
            file.writelines(runs.add(diff))
        _write(self.out, "gaps", runs.gaps)
        _write(self.out, "lengths", runs.lengths)
        return [runs.idle]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Pack one stream, which lies in several files, into one."""

    parts: Sequence[str]
    planar: bool
    out: str

    @property
    def size(self) -> int:
        """Return the bytes it is about."""
        return sum(os.stat(part).st_size for part in self.parts)

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory it takes."""
        return compress.memory(self.size)

    def perform(self) -> list[int]:
        """Return codec, raw bytes and packed bytes.

        Raises:
            OSError: the disk refused.

        Power cut: nothing reads the file again.
        """
        with Path(self.out).open("wb") as out:
            codec, length = compress.stream(
                pieces(self.parts), self.size, out, planar=self.planar
            )
        return [codec, self.size, length]


def pieces(paths: Sequence[str]) -> Iterator[bytes]:
    """Yield what files hold, one after another."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(_PIECE):
                yield data


def _write(out: str, name: str, data: "bytes | bytearray | array[int]") -> None:
    with Path(f"{out}.{name}").open("wb") as file:
        file.write(data)


def _bytes(ranges: Sequence[Range]) -> bytes:
    return b"".join(_range(*one) for one in ranges)


def _range(path: str, offset: int, count: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(count)  # one read: a second one would need a second copy
        while len(data) < count and (more := file.read(count - len(data))):
            data += more
    if len(data) < count:
        raise BrokenError(
            f"{path} changed while the delta was made",
            do="leave the trees alone while they are pushed",
            code="tree_changed",
        )
    return data


def run(task: Match | Pack) -> list[int]:
    """Perform a task in a process of its own, which ends at the latest with us.

    The calling thread has to stay until then: the kernel takes it for the parent.

    Raises:
        BrokenError: it failed, or was killed.
    """
    roots = [str(Path(updaterd.__file__).parents[1]), *sys.path]
    done = subprocess.run(  # noqa: S603  our own interpreter, our own code
        [sys.executable, "-I", "-c", _START, "\n".join(roots)],
        input=json.dumps({
            "kind": type(task).__name__,
            "parent": os.getpid(),
            **asdict(task),
        }),
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        check=False,
    )
    if done.returncode:
        raise BrokenError(
            f"making a delta failed: {done.stderr.strip()[-200:] or done.returncode}",
            means="a process that matches or packs ended early",
            do="give it more memory, or a smaller budget",
            code="delta_worker",
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise BrokenError(**answer["error"])
    return list(answer["result"])


def main() -> None:
    """Perform the task on stdin."""
    task: dict[str, Any] = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != task.pop("parent"):
        return  # it was gone before the kernel could know
    kind = {"Match": Match, "Pack": Pack}[task.pop("kind")]
    try:
        answer: dict[str, Any] = {"result": kind(**task).perform()}
    except BrokenError as error:
        fields = ("what", "means", "do", "code")
        answer = {"error": {name: getattr(error, name) for name in fields}}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
