# SPDX-License-Identifier: Apache-2.0
"""Hostile releases, validly signed: by a stolen release key, or an honest fool's.

Each changes the manifest of the release that was published last, and signs it.
"""

import bz2
import hashlib
import json
import struct
from dataclasses import replace
from functools import cache

from fakes.bundles import assemble, pack
from fakes.rig import Rig

from security.attacks import manifest_of, sign_manifest, sign_raw
from updaterd.artifact import codecs, container, script
from updaterd.artifact.apply import operations
from updaterd.artifact.codecs import BZ2, STORED, XZ, ZSTD, zstd
from updaterd.artifact.script import LINK, MADE, Item
from updaterd.core.manifest import Delta, File

BIG = 64 << 20
NOTHING = (STORED, 0, b"")


@cache
def bomb(codec: int) -> bytes:
    """Return 64 MiB of nothing, packed."""
    if codec == ZSTD:
        return bytes(zstd().compress(bytes(BIG)))
    if codec == BZ2:
        return bz2.compress(bytes(BIG))
    return pack(bytes(BIG))[2]


def with_full(rig: Rig, data: bytes, codec: str = "full1+bz2+xz+zstd"):
    """Sign a manifest whose only bundle is this one."""
    full = replace(manifest_of(rig).full, codec=codec, **_blob(rig, data))
    sign_manifest(rig, full=full, deltas=())


def with_delta(rig: Rig, data: bytes, codec: str):
    """Sign a manifest whose only delta is this one; its full bundle is honest."""
    old, new = manifest_of(rig, rig.installed), manifest_of(rig)
    edge = Delta(
        from_version=old.version,
        from_tree=old.tree,
        to_version=new.version,
        to_tree=new.tree,
        codec=codec,
        memory=1 << 20,
        **_blob(rig, data),
    )
    sign_manifest(rig, deltas=(edge,))
    return edge


def with_delta_alone(rig: Rig, data: bytes, codec: str):
    """Sign a manifest with this delta, and a full bundle that is none."""
    edge = with_delta(rig, data, codec)
    blob = _blob(rig, b"no bundle" * (1 << 18))  # so dear that the delta comes first
    full = replace(manifest_of(rig).full, **blob)
    sign_manifest(rig, full=full, deltas=(edge,))
    return edge


def _blob(rig: Rig, data: bytes) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    path = rig.publisher.space.blob(digest)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return {"sha256": digest, "length": len(data)}


def contents(rig: Rig) -> bytes:
    """Return what the honest full bundle holds, unpacked."""
    seen: dict[str, bytes] = {}
    for entry in manifest_of(rig).files:
        if isinstance(entry, File):
            path = rig.folder / "trees" / rig.published / entry.path
            seen.setdefault(entry.sha256, path.read_bytes())
    return b"".join(seen.values())


def full_of(raw: bytes) -> bytes:
    return assemble(container.FULL, pack(raw))


FULLS = {
    "extraneous_file": lambda rig: full_of(contents(rig) + b"#!/bin/sh\nevil\n"),
    "other_contents": lambda rig: full_of(contents(rig)[::-1]),
    "missing_contents": lambda rig: full_of(contents(rig)[:-1]),
    "not_a_bundle": lambda _: b"\x7fELF" + bytes(400),
    "empty_bundle": lambda _: assemble(container.FULL),
    **{
        f"bomb_{name}_{honest}": lambda rig, codec=codec, honest=honest: assemble(
            container.FULL,
            (codec, BIG if honest == "declared" else len(contents(rig)), bomb(codec)),
        )
        for name, codec in (("xz", XZ), ("bz2", BZ2), ("zstd", ZSTD))
        for honest in ("declared", "understated")
    },
}
"""Full bundles: name and the bytes of it."""


def _path(name: str):
    return lambda files: files[0].update(path=name)


LISTINGS = {
    "traversal": _path("../../evil"),
    "traversal_inside": _path("bin/../../../evil"),
    "absolute_path": _path("/tmp/updaterd-evil"),  # noqa: S108 # must not be made
    "dot_path": _path("."),
    "nul_in_path": _path("bin/app\0evil"),
    "terminal_in_path": _path("bin/\x1b[2J\x1b]0;owned\x07"),
    "setuid": lambda files: files[0].update(mode=0o4755),
    "world_writable": lambda files: files[0].update(mode=0o777),
    "link_out": lambda files: files.append({
        "path": "out",
        "symlink": "../../../../etc",
    }),
    "link_absolute": lambda files: files.append({
        "path": "out",
        "symlink": "/etc/passwd",
    }),
    "below_a_link": lambda files: files.extend([
        {"path": "x", "symlink": "data"},
        {**files[0], "path": "x/evil"},
    ]),
    "below_a_file": lambda files: files.append({**files[0], "path": "bin/app/evil"}),
    "twice": lambda files: files.append(dict(files[0])),
    "device": lambda files: files.append({
        "path": "null",
        "device": [1, 3],
        "mode": 0o666,
    }),
    "fifo": lambda files: files.append({"path": "pipe", "fifo": True, "mode": 0o666}),
    "million_files": lambda files: files.extend(
        {**files[0], "path": f"f{n:06}"} for n in range(3000)
    ),
}
"""What a validly signed manifest may ask for; all of it is refused."""


def with_listing(rig: Rig, change):
    raw = json.loads(manifest_of(rig).encode())
    change(raw["files"])
    sign_raw(rig, json.dumps(raw).encode())


def _streams(rig: Rig) -> list[bytes]:
    """Return script, control, runs, changes and extra of the honest delta."""
    (edge,) = (
        each
        for each in manifest_of(rig).deltas
        if each.from_version == rig.installed and each.codec.startswith("delta1")
    )
    with rig.publisher.space.blob(edge.sha256).open("rb") as file:
        return [
            codecs.read_whole(file.fileno(), packed, "stream", limit=1 << 20)
            for packed in container.read(
                file.fileno(), container.DELTA, length=edge.length
            )
        ]


def _repacked(rig: Rig, **changed: bytes) -> bytes:
    names = ("script", "control", "runs", "changes", "extra")
    raw = dict(zip(names, _streams(rig), strict=True)) | changed
    return assemble(container.DELTA, *map(pack, raw.values()))


def _controlled(*steps: tuple[int, int, int]):
    control = b"".join(operations.encode(steps))
    return lambda rig: _repacked(rig, control=control)


def _corrupt(rig: Rig) -> bytes:
    """Return the honest delta; its script's packed bytes are noise."""
    first, *others = map(pack, _streams(rig))
    codec, length, packed = first
    return assemble(container.DELTA, (codec, length, b"\xff" * len(packed)), *others)


def _too_long(rig: Rig) -> bytes:
    """Return the honest delta; its operations go on and on writing."""
    extra = bytes(1 << 20)
    control = b"".join(operations.encode([(0, len(extra), 0)]))
    return _repacked(rig, control=control, runs=b"", changes=b"", extra=extra)


def _other_result(rig: Rig) -> bytes:
    """Return a flawless delta to a tree of the same names and sizes."""
    *_, changes, extra = _streams(rig)
    assert changes or extra
    return _repacked(
        rig,
        changes=bytes(byte ^ 1 for byte in changes),
        extra=bytes(byte ^ 1 for byte in extra),
    )


def _scripted(item: Item):
    def make(rig: Rig) -> bytes:
        files = manifest_of(rig, rig.installed).files
        raw = script.encode(files, [item], [0], [], {entry.path for entry in files})
        control = b"".join(operations.encode([(0, 3, 0)]))
        return assemble(
            container.DELTA, pack(raw), pack(control), NOTHING, NOTHING, pack(b"abc")
        )

    return make


def _delta_bomb(_rig: Rig) -> bytes:
    return assemble(
        container.DELTA, *[(XZ, BIG, bomb(XZ))] * 2, NOTHING, NOTHING, NOTHING
    )


def _bsdiff_bomb(_rig: Rig) -> bytes:
    """Return a patch such as the 393 bytes that took bsdiff4 to 0.8 GB."""
    parts = [bz2.compress(bytes(24 * 400_000)), bomb(BZ2), bz2.compress(b"")]
    head = struct.pack("<8sqqq", b"BSDIFF40", len(parts[0]), len(parts[1]), 1 << 30)
    return head + b"".join(parts)


OURS = "delta1+bz2+xz+zstd"
DELTAS = {
    "corrupt_stream": (OURS, _corrupt),
    "output_beyond_length": (OURS, _too_long),
    "file_beyond_length": (OURS, _scripted(Item("n", MADE, 0o644, 1 << 45))),
    "copy_out_of_range": (OURS, _controlled((0, 0, 10**9), (3, 0, 0))),
    "other_result": (OURS, _other_result),
    "traversal": (OURS, _scripted(Item("../precious", MADE, 0o644, 3))),
    "link_out": (OURS, _scripted(Item("n", LINK, target="../../../precious"))),
    "setuid": (OURS, _scripted(Item("n", MADE, 0o4755, 3))),
    "delta_bomb": (OURS, _delta_bomb),
    "bsdiff_bomb": ("bsdiff40", _bsdiff_bomb),
}
"""Deltas: codec, and the bytes of it, for the step from installed to published."""
