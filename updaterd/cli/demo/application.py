# SPDX-License-Identifier: Apache-2.0
"""The application that the demo ships: a program, libraries and data, a few MB.

"Acme Atlas" looks up places in a gazetteer. It is real in what matters here: it
runs, it loads its libraries and data, and release 1.2.0 is broken the way releases
break: the program expects data that the release does not carry.

The libraries are a copy of some of Python's own standard library and the extension
modules beside it: real source text and real ELF files, found on every machine that
can run the demo.
"""

import hashlib
import json
import shutil
import sys
import sysconfig
from pathlib import Path

_PACKAGES = ("email", "json", "http", "xml", "concurrent", "logging", "urllib")
_TILE = 1 << 16
_TILES = 40
_LIBRARY_BYTES = 2_500_000

_PROGRAM = '''\
"""Acme Atlas {version}: look up a place."""

import json
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
VERSION = "{version}"
SECTIONS = {sections}


def load():
    index = json.loads((HOME / "data" / "index.json").read_text())
    for section in SECTIONS:
        index[section]  # the data must carry what the program needs
    for tile in index["tiles"]:
        if (HOME / "data" / tile["name"]).stat().st_size != tile["bytes"]:
            raise SystemExit(f"atlas: {{tile['name']}} is damaged")
    return index


if __name__ == "__main__":
    index = load()
    if "--health" in sys.argv:
        print(f"healthy: atlas {{VERSION}}, {{len(index['tiles'])}} tiles")
    else:
        print(f"Acme Atlas {{VERSION}}: {{len(index['places'])}} places")
'''

_LAUNCHER = """\
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1
exec {python} -I "$here/lib/atlas.py" {arguments}
"""


def _noise(seed: str, count: int) -> bytes:
    """Return `count` bytes that no compressor can shrink, the same every time."""
    return hashlib.shake_256(seed.encode()).digest(count)


def _write(path: Path, data: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _libraries(tree: Path, packages: tuple[str, ...]) -> None:
    standard = Path(sysconfig.get_path("stdlib"))
    for package in packages:
        shutil.copytree(
            standard / package,
            tree / "lib" / "vendor" / package,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
        )
    total = 0
    for library in sorted((standard / "lib-dynload").glob("*.so")):
        size = library.stat().st_size
        if total + size <= _LIBRARY_BYTES:
            _write(tree / "lib" / "native" / library.name, library.read_bytes(), 0o755)
            total += size


def make(
    tree: Path,
    version: str,
    *,
    broken: bool = False,
    new_tiles: int = 0,
    more: tuple[str, ...] = (),
) -> None:
    """Make the tree of one release.

    Args:
        tree: where; must not exist.
        version: the release; two releases differ in the program, in the index and
            in one tile, as two builds of a real application would.
        broken: the program asks for a section that the data does not have.
        new_tiles: how many tiles of 64 KiB this release adds.
        more: packages of the standard library that it has besides.
    """
    _libraries(tree, _PACKAGES + more)
    tiles = {f"tile-{n:03}.bin": _noise(f"tile {n}", _TILE) for n in range(_TILES)}
    changed = f"tile-{len(version) % _TILES:03}.bin"
    fresh = bytearray(tiles[changed])
    fresh[1000:1000] = _noise(version, 400)
    tiles[changed] = bytes(fresh)
    for n in range(new_tiles):
        tiles[f"tile-{version}-{n:03}.bin"] = _noise(f"{version} {n}", _TILE)
    for name, data in tiles.items():
        _write(tree / "data" / name, data)
    places = [
        {"name": f"place {n}", "at": [n % 180, (n * 7) % 90], "since": version}
        for n in range(2000)
    ]
    sections = ["places", "tiles"] + (["borders"] if broken else [])
    index = {
        "places": places,
        "tiles": [{"name": name, "bytes": len(data)} for name, data in tiles.items()],
    }
    _write(tree / "data" / "index.json", json.dumps(index, indent=1).encode())
    program = _PROGRAM.format(version=version, sections=sections)
    _write(tree / "lib" / "atlas.py", program.encode())
    for name, arguments in (("atlas", '"$@"'), ("healthcheck", "--health")):
        launcher = _LAUNCHER.format(python=sys.executable, arguments=arguments)
        _write(tree / "bin" / name, launcher.encode(), 0o755)
    (tree / "bin" / "acme-atlas").symlink_to("atlas")
    _write(tree / "share" / "empty", b"")
