# SPDX-License-Identifier: Apache-2.0
"""Full bundles: a whole tree in one file (docs/formats.md)."""

import hashlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from updaterd.artifact import codecs, container
from updaterd.artifact import unpack as reader
from updaterd.artifact.job import Job
from updaterd.artifact.worker.parent import run
from updaterd.core.bundle_kinds import FULL
from updaterd.core.manifest import Entry, File, Full, tree_id
from updaterd.core.routes import codec_name
from updaterd.errors import BrokenError
from updaterd.release.bundles.packing import compress, exchange
from updaterd.release.bundles.pool import BUDGET

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much is done."""

FRAME = 1 << 24
"""Raw bytes of a frame: the unit that can be fetched and unpacked by itself."""

_MEMORY = compress.memory(FRAME) + 2 * FRAME  # to pack one


def _frames(root: Path, files: Sequence[Entry]) -> Iterator[bytes]:
    """Yield the distinct contents of a tree, cut into frames.

    Raises:
        BrokenError: the tree changed meanwhile.
    """
    pending = bytearray()
    for entry, _ in reader.contents(files):
        state = hashlib.sha256()
        with (root / entry.path).open("rb") as file:
            while data := file.read(1 << 20):
                state.update(data)
                pending += data
                if len(pending) >= FRAME:
                    yield bytes(pending[:FRAME])
                    del pending[:FRAME]
        if state.hexdigest() != entry.sha256:
            raise BrokenError(
                f"{root / entry.path} changed while it was bundled",
                do="leave the tree alone while it is pushed",
                code="tree_changed",
            )
    if pending:
        yield bytes(pending)


def build_full(  # noqa: PLR0913 - what is packed, and with what
    root: Path,
    files: Sequence[Entry],
    out: Path,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    rate: int = exchange.BALANCED,
    budget: int = BUDGET,
) -> Full:
    """Write the full bundle of a tree, the same bytes for the same tree.

    Args:
        root: of the tree.
        files: its listing, as `tree.scan` returns it.
        out: file to write; replaced.
        progress: called with "bundle", bytes done and bytes in all; by other threads
            too, one at a time.
        workers: frames packed at a time; each takes about 140 MB. None for all
            cores, as far as the budget goes.
        budget: bytes of memory that packing may take, about.
        rate: bytes that a millisecond of a machine's CPU is worth.

    Raises:
        BrokenError: the tree changed meanwhile.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    total = sum(entry.length for entry, _ in reader.contents(files))
    unpacked = sum(entry.length for entry in files if isinstance(entry, File))
    table: list[tuple[int, int, int]] = []
    done = 0
    lock = threading.Lock()

    def more(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress("bundle", done, total)

    cores = len(os.sched_getaffinity(0))
    count = workers or max(1, min(cores, budget // _MEMORY))
    with tempfile.TemporaryFile(dir=out.parent) as body:

        def take(packing: "Future[tuple[int, int, bytes]]") -> None:
            codec, raw, packed = packing.result()
            table.append((codec, raw, len(packed)))
            body.write(packed)

        with ThreadPoolExecutor(count) as threads:
            packing: deque[Future[tuple[int, int, bytes]]] = deque()
            for frame in _frames(root, files):
                if len(packing) == count:
                    take(packing.popleft())
                packing.append(threads.submit(_pack, frame, more, rate))
            for step in packing:
                take(step)
        body.seek(0)
        pieces = iter(lambda: body.read(1 << 20), b"")
        sha256, length = write(out, container.header(container.FULL, table), pieces)
    used = {codecs.NAMES[codec] for codec, _, _ in table if codec != codecs.STORED}
    return Full(
        sha256=sha256,
        length=length,
        unpacked=unpacked,
        codec=codec_name(FULL, frozenset(used)),
    )


def _pack(
    frame: bytes, more: Callable[[int], None], rate: int
) -> tuple[int, int, bytes]:
    """Return the codec, the raw length and the packed bytes of a frame."""
    codec, packed = compress.cheapest(frame, rate=rate, more=more)
    return codec, len(frame), packed


def write(out: Path, head: bytes, body: Iterable[bytes]) -> tuple[str, int]:
    """Write a bundle's head and body to `out`; return its sha256 and length.

    Raises:
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    state = hashlib.sha256(head)
    length = len(head)
    with out.open("wb") as file:
        file.write(head)
        for data in body:
            state.update(data)
            length += len(data)
            file.write(data)
    return state.hexdigest(), length


def unpack(
    bundle: Path, full: Full, files: tuple[Entry, ...], destination: Path
) -> None:
    """Unpack a full bundle into a new directory: an earlier release's tree.

    Raises:
        RejectedError: the bundle is not what the manifest says.
        TransientError: the disk is full.
    """
    destination.mkdir(mode=0o700, parents=True, exist_ok=True)
    run(
        Job(
            kind="full",
            codec=full.codec,
            bundle=bundle,
            bundle_sha256=full.sha256,
            bundle_length=full.length,
            destination=destination,
            files=files,
            tree=tree_id(files),
        )
    )
