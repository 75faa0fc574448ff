"""Hostile releases, validly signed: by a stolen release key, or an honest fool's.

Each changes the manifest of the release that was published last, and signs it.
"""

import hashlib
import json
from dataclasses import replace
from functools import cache

from fakes.bundles import assemble, pack
from fakes.rig import Rig

from security.attacks import manifest_of, sign_manifest, sign_raw
from updaterd.artifact import container
from updaterd.artifact.codecs import BZ2, XZ, ZSTD, zstd
from updaterd.core.manifest import File

BIG = 64 << 20


@cache
def bomb(codec: int) -> bytes:
    """Return 64 MiB of nothing, packed."""
    if codec == ZSTD:
        return bytes(zstd().compress(bytes(BIG)))
    if codec == BZ2:
        import bz2

        return bz2.compress(bytes(BIG))
    return pack(bytes(BIG))[2]


def with_full(rig: Rig, data: bytes, codec: str = "full1+bz2+xz+zstd"):
    """Sign a manifest whose only bundle is this one."""
    full = replace(manifest_of(rig).full, codec=codec, **_blob(rig, data))
    sign_manifest(rig, full=full, deltas=())


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
