# SPDX-License-Identifier: Apache-2.0
"""Cut the power of a whole disk at every flush, losing and tearing what was not.

    python tests/faults/powercuts.py --fs ext4 --states 500
    python tests/faults/powercuts.py --fs xfs --states 500
    python tests/faults/powercuts.py --fs btrfs --states 500
    python tests/faults/powercuts.py --fs ext4 --states 100 --no-sync    must fail

The machine lives on a loop-mounted file system whose image qemu-storage-daemon
exports over FUSE and whose writes and flushes its `blklogwrites` driver records, in
the order in which the disk saw them. Real updates run: 1.1.0, a 1.2.0 that is not
well, and 1.3.0. Then for a state the disk is built anew: everything up to one of the
flushes, and of what was written after it and before the next a random subset, in
which one write may be torn at a sector. It is mounted, as after a power cut, and

- `current` must lead to one of the releases, byte for byte;
- an update that was reported as installed before the cut must still be there;
- the next update must end at 1.3.0 with journal and disk in agreement.

--no-sync is the negative control: the same with every fsync of updaterd left out.
Needs root, qemu-storage-daemon, /dev/fuse, loop devices, mkfs of the file system.
"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.bench import Bench
from fakes.machine import Machine
from fakes.site import Site
from fakes.starter import import_everything

SECTOR = 512
REPAIRS = {
    "ext4": ("e2fsck", "-f", "-y"),
    "xfs": ("xfs_repair", "-L"),
    "btrfs": ("btrfs", "rescue", "super-recover", "-y"),
}
SIZES = {"ext4": 64, "xfs": 320, "btrfs": 128}
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_ENTRY = struct.Struct("<QQQQ")
_SUPER = struct.Struct("<QQQI")
_MAGIC = 0x6A736677736872
_APART = "UPDATERD_POWERCUTS_APART"


@dataclass(frozen=True)
class Write:
    """One entry of the log: where, what, and whether it is a barrier."""

    offset: int
    data: bytes
    flags: int


def read_log(path: Path) -> list[Write]:
    """Return the entries of a dm-log-writes log, as qemu's blklogwrites keeps it."""
    found = []
    with path.open("rb") as file:
        magic, _, count, size = _SUPER.unpack(file.read(_SUPER.size))
        assert magic == _MAGIC
        at = size
        for _ in range(count):
            file.seek(at)
            sector, sectors, flags, _ = _ENTRY.unpack(file.read(_ENTRY.size))
            at += size
            data = b""
            if flags & _DISCARD:
                # nothing here discards; a file system's WRITE_ZEROES comes through
                # loop and FUSE as a hole that is punched: it must read as zeros
                data = bytes(sectors * size)
            elif sectors:
                file.seek(at)
                data = file.read(sectors * size)
                at += len(data)
            found.append(Write(sector * size, data, flags))
    return found


def entries(path: Path) -> int:
    """Return how many entries the log has now."""
    with path.open("rb") as file:
        return _SUPER.unpack(file.read(_SUPER.size))[2]


class Recorded(Bench):
    """A machine on a disk that records; afterwards, one whose disk is chosen."""

    def __init__(self, root: Path, kind: str, *, sync: bool) -> None:
        self.root = root
        self.healthy = True
        self.trees = {}
        self.first = False
        self.sync = sync
        self.kind = kind
        self.base, self.log = root / "base.img", root / "writes.log"
        self.acknowledged: list[tuple[int, str]] = []
        self.mount_point = root / "machine"
        self.mount_point.mkdir()
        self.site = Site(root / "site")
        self.site.start()
        self._record()

    def _record(self) -> None:
        with self.base.open("wb") as file:
            file.truncate(SIZES[self.kind] * 2**20)
        force = "-F" if self.kind == "ext4" else "-f"
        subprocess.run([f"mkfs.{self.kind}", "-q", force, self.base], check=True)
        disk, export = self.root / "disk.img", self.root / "export"
        shutil.copyfile(self.base, disk)
        self.log.touch()
        export.touch()
        options = "file=disk,log=log,log-sector-size=512,log-super-update-interval=1"
        fuse = f"writable=on,mountpoint={export}"
        daemon = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=disk,filename={disk}",
            "--blockdev", f"driver=file,node-name=log,filename={self.log}",
            "--blockdev", f"driver=blklogwrites,node-name=recorded,{options}",
            "--export", f"type=fuse,id=fuse,node-name=recorded,{fuse}",
        ])  # fmt: skip
        try:
            while export.stat().st_size == 0:
                if daemon.poll() is not None:
                    raise RuntimeError("qemu-storage-daemon did not start")
                time.sleep(0.05)
            with Mounted(export, self.mount_point, self.kind):
                self._updates()
        finally:
            daemon.terminate()
            daemon.wait()

    def _updates(self) -> None:
        self.machine = Machine(
            self.mount_point,
            feed=self.site.feed_url,
            repository=f"{self.site.address}/repo",
            bootstrap=self.site.bootstrap,
            health=[str(self.mount_point / "opt/acme/current/bin/healthcheck")],
        )
        os.sync()
        for version, healthy in (
            ("1.0.0", True), ("1.1.0", True), ("1.2.0", False), ("1.3.0", True),
        ):  # fmt: skip
            self.push(version, healthy=healthy)
            code = self.run()
            assert code == (0 if healthy else 30), self.output()
            running = self.machine.running
            # what the disk has seen when the command has said that it is done
            self.acknowledged.append((entries(self.log), running))

    @property
    def target(self) -> str:
        return "1.3.0"

    def prepare(self) -> None:
        if not self.sync:
            leave_out_syncs()

    def states(self, count: int, seed: int):
        """Yield image, the version that must have survived, and a description."""
        writes = read_log(self.log)
        draw = random.Random(seed)
        first = self.acknowledged[0][0]  # from a machine with 1.0.0 on
        flushes = [i for i, w in enumerate(writes) if w.flags & (_FLUSH | _FUA)]
        flushes = [i for i in flushes if i >= first] or [first]
        image, applied = self.root / "durable.img", 0
        shutil.copyfile(self.base, image)
        chosen = sorted(draw.choice(range(len(flushes))) for _ in range(count))
        if count >= len(flushes):
            chosen[: len(flushes)] = range(len(flushes))
            chosen.sort()
        with image.open("r+b") as file:
            for turn, number in enumerate(chosen):
                low = flushes[number] + 1
                high = flushes[number + 1] if number + 1 < len(flushes) else len(writes)
                for write in writes[applied:low]:
                    put(file, write)
                applied = max(applied, low)
                file.flush()
                # A file of its own for each: where another mount namespace still
                # holds the last one's loop device, mount would take that again.
                state = self.root / f"state-{turn}.img"
                subprocess.run(["cp", "--sparse=always", image, state], check=True)
                lost = self._lose(state, writes[low:high], draw)
                # reported before the power went, so flushed at `low` or earlier
                survived = [v for at, v in self.acknowledged if at <= high]
                yield state, survived, f"flush {number} of {len(flushes)}, {lost}"
                state.unlink()

    def _lose(self, state: Path, pending: list[Write], draw: random.Random) -> str:
        pending = [write for write in pending if write.data]
        share = draw.choice((0.0, 0.3, 0.5, 0.8, 1.0))
        kept = [write for write in pending if draw.random() < share]
        draw.shuffle(kept)
        torn = draw.choice(kept) if kept and draw.random() < 0.5 else None
        with state.open("r+b") as file:
            for write in kept:
                sectors = len(write.data) // SECTOR
                cut = draw.randrange(sectors) * SECTOR if write is torn else None
                put(file, Write(write.offset, write.data[:cut], 0))
        return f"{len(kept)} of {len(pending)} writes" + (", one torn" if torn else "")

    def problems_of(self, state: Path, survived: list[str]) -> list[str]:
        """Mount a state as after a power cut; return what is wrong with it."""
        with Mounted(state, self.mount_point, self.kind):
            found = self.broken_tree()
            order = ("1.0.0", "1.1.0", "1.3.0")
            if survived and not found:
                running = self.machine.running
                newest = max(survived, key=order.index)
                trial = running == "1.2.0"
                if not trial and order.index(running) < order.index(newest):
                    found.append(f"{newest} was installed, {running} runs")
            if found:
                return found
            return self.recover()


class Mounted:
    """A file system image, mounted through a loop device."""

    def __init__(self, image: Path, at: Path, kind: str) -> None:
        self._image, self._at, self._kind = image, at, kind

    def __enter__(self) -> None:
        mount = ["mount", "-o", "loop", self._image, self._at]
        if subprocess.run(mount, check=False).returncode == 0:
            return
        # A torn write of the file system's own superblock, which the disks that it is
        # made for do not tear: repaired as its owner would by hand, and told.
        repair = REPAIRS[self._kind]
        code = subprocess.run(
            [*repair, self._image], stdout=subprocess.DEVNULL, check=False
        ).returncode
        print(f"{self._kind} had to be repaired: {repair[0]} ended with {code}")
        subprocess.run(mount, check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self._at], check=True)
        if self._kind == "btrfs":
            # it remembers a device of this id, and refuses the next, older state
            subprocess.run(["btrfs", "device", "scan", "--forget"], check=True)


def stand_apart() -> None:
    """Go on in a mount namespace of its own.

    In the machine's, whoever makes a namespace of his own at this moment (a service, a
    container) gets a copy of a state's mount, and keeps that state's file system alive
    when it is unmounted here. The next state then meets the last one's: ext4 mounts
    its loop device again, xfs refuses a second file system of the same UUID.
    """
    if os.environ.get(_APART) != "1":
        os.environ[_APART] = "1"
        apart = ["unshare", "--mount", "--propagation", "private"]
        os.execvp(apart[0], [*apart, sys.executable, *sys.argv])  # noqa: S606 - itself


def put(file, write: Write) -> None:
    file.seek(write.offset)
    file.write(write.data)


def leave_out_syncs() -> None:
    """Take every fsync out of this process: the negative control."""
    from updaterd import durable
    from updaterd.store import rebuild

    class NoSync:
        def __getattr__(self, name: str) -> object:
            if name in ("fsync", "fdatasync"):
                return lambda _: None
            return getattr(os, name)

    class NoLibc:
        def __init__(self, real: object) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return (lambda _: 0) if name == "syncfs" else getattr(self._real, name)

    durable.os = NoSync()
    durable._libc = NoLibc(durable._libc)
    real = rebuild.open_state

    def careless(path):
        connection = real(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    rebuild.open_state = careless


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=tuple(SIZES), default="ext4")
    parser.add_argument("--states", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-sync", action="store_true")
    arguments = parser.parse_args()
    stand_apart()
    import_everything()
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="powercuts-"))
    bench, failures, count = None, 0, 0
    try:
        bench = Recorded(root, arguments.fs, sync=not arguments.no_sync)
        log = read_log(bench.log)
        flushes = sum(1 for write in log if write.flags & (_FLUSH | _FUA))
        print(f"{len(log)} writes, {flushes} flushes recorded", flush=True)
        for state, survived, how in bench.states(arguments.states, arguments.seed):
            count += 1
            problems = bench.problems_of(state, survived)
            if problems:
                failures += 1
                print(f"FAILED {how}", *problems, sep="\n    ", flush=True)
            if count % 50 == 0:
                print(f"{count} states, {failures} failed", flush=True)
    finally:
        if bench is not None:
            bench.close()
        shutil.rmtree(root, ignore_errors=True)
    took = time.monotonic() - began
    print(f"{arguments.fs}: {count} states, {failures} failures, {took:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
