# SPDX-License-Identifier: Apache-2.0
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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import updaterd
from updaterd.artifact import codecs
from updaterd.errors import BrokenError
from updaterd.release.bundles import matching
from updaterd.release.bundles.packing import compress
from updaterd.release.bundles.packing.reading import Range, whole
from updaterd.release.bundles.packing.runs import Runs
from updaterd.release.bundles.programs import matching as program_matching

SMALL = 1 << 20
"""Bytes below which a process of its own costs more than the work."""
_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    # As it is, until a large block is freed: later ones would stay with the process.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 17),
}
_START = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10));"
    "import updaterd.release.bundles.tasks as tasks; tasks.main()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Match one group; its covers and streams go to files beside `out`.

    Attributes:
        old: what it is matched with.
        new: what is made.
        matcher: by name.
        out: where its files go.
        room: bytes of memory that matching may take.
        images: of the old files and of the new ones, where each range is a whole
            file and references are re-aimed (`programs.matching`); None elsewhere.
        most: copies that there may be; what is shortest is new bytes then.
    """

    old: Sequence[Range]
    new: Sequence[Range]
    matcher: str
    out: str
    room: int
    images: tuple[program_matching.Images, program_matching.Images] | None = None
    most: int | None = None

    @property
    def size(self) -> int:
        """Return the bytes it is about."""
        return sum(count for _, _, count in (*self.old, *self.new))

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory it takes."""
        old, new = (sum(c for _, _, c in part) for part in (self.old, self.new))
        memory = matching.memory(self.matcher, old, new)
        if self.matcher == matching.BSDIFF:
            return memory
        return min(memory, matching.GROUND + max(self.room, old + 3 * new))

    def perform(self) -> list[int]:
        """Return how many zeros the diff ends with.

        Raises:
            BrokenError: a file changed meanwhile, or the matcher is not there.
            OSError: the disk refused.

        Power cut: nothing reads these files again.
        """
        covers, diff, extra = self._match()
        _write(self.out, "extra", extra)
        del extra
        _write(self.out, "covers", array("Q", (n for c in covers for n in c)))
        runs = Runs()
        with Path(f"{self.out}.changes").open("wb") as file:
            file.writelines(runs.add(diff))
        _write(self.out, "gaps", runs.gaps)
        _write(self.out, "lengths", runs.lengths)
        return [runs.idle]

    def _match(self) -> tuple[list[matching.Cover], bytearray, bytearray]:
        """Return covers, diff and what is new."""
        if self.images is None:
            old, new = whole(self.old), whole(self.new)
            covers = self._fewer(self._plain(old, new))
            return covers, *matching.streams(old, new, covers)
        old_images, new_images = self.images
        group = program_matching.Group(
            program_matching.Side(self.old, old_images),
            program_matching.Side(self.new, new_images),
            self.out,
            self.room,
        )
        covers = self._fewer(group.find(self.matcher))
        return covers, *group.subtract(covers)

    def _plain(self, old: bytes, new: bytes) -> list[matching.Cover]:
        """Return what two sides have in common, which are in memory."""
        if matching.memory(self.matcher, len(old), len(new)) <= self.memory:
            return list(matching.find(old, new, self.matcher))
        room = max(1 << 20, self.room - len(old) - len(new))
        covers = []
        for low, count, first, width in matching.windows(len(old), len(new), room):
            sides = old[first : first + width], new[low : low + count]
            for new_at, old_at, size in matching.find(*sides, self.matcher):
                covers.append((low + new_at, first + old_at, size))
        return covers

    def _fewer(self, covers: list[matching.Cover]) -> list[matching.Cover]:
        """Return as many covers as there may be, the longest."""
        if self.most is None or len(covers) <= self.most:
            return covers
        longest = sorted(range(len(covers)), key=lambda i: (-covers[i][2], i))
        return [covers[index] for index in sorted(longest[: self.most])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Pack one stream, which lies in several files, into one."""

    parts: Sequence[str]
    planar: bool
    out: str
    codec: int = codecs.XZ

    @property
    def size(self) -> int:
        """Return the bytes it is about."""
        return sum(os.stat(part).st_size for part in self.parts)

    @property
    def memory(self) -> int:
        """Return about how many bytes of memory it takes."""
        return compress.memory(self.size)

    def perform(self) -> list[int]:
        """Return codec, raw bytes and packed bytes; STORED if these are not fewer.

        Raises:
            BrokenError: this Python has no zstd.
            OSError: the disk refused.

        Power cut: nothing reads the file again.
        """
        size = self.size
        packed = compress.pack(
            self.parts, size, self.out, self.codec, planar=self.planar
        )
        if packed >= size:
            return [codecs.STORED, size, size]
        return [self.codec, size, packed]

    def files(self, codec: int) -> Sequence[str]:
        """Return what holds the stream in this form."""
        return self.parts if codec == codecs.STORED else [self.out]


def _write(out: str, name: str, data: "bytes | bytearray | array[int]") -> None:
    with Path(f"{out}.{name}").open("wb") as file:
        file.write(data)


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
        fields = ("cause", "means", "do", "code")
        answer = {"error": {name: getattr(error, name) for name in fields}}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
