# SPDX-License-Identifier: Apache-2.0
"""Which files of a delta get an image, so that their references are re-aimed.

A program gets one when it is matched, whole, with an old program, and something has
moved in it. What is old, or made and read again, is described in full; what is only
made needs its segments alone.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from updaterd.artifact.programs import stream as images
from updaterd.artifact.programs.image import MAX_TABLES
from updaterd.release.bundles.grouping import Group
from updaterd.release.bundles.packing.reading import apart
from updaterd.release.bundles.programs import elf, matching, stillness
from updaterd.release.bundles.programs.matching import Images
from updaterd.release.bundles.ranges import Piece, Ranges

Rows = tuple[bytes, bytes, bytes]
"""Segments, regions and tables, as `Image` takes them."""

LEAST_CODE = 8 << 10
"""Bytes of code below which an image costs more than it saves, about."""


@dataclass(slots=True)
class Imaging:
    """What the groups of a delta are matched with.

    Attributes:
        groups: for each, the images of its old and its new files, or None.
        stream: the images stream; empty when nothing is re-aimed.
        arm: AArch64 programs are among what is re-aimed.
    """

    groups: list[tuple[Images, Images] | None]
    stream: bytes = b""
    arm: bool = False


def none(groups: Sequence[Group]) -> Imaging:
    """Return what leaves every group as it is."""
    return Imaging([None] * len(groups))


def describe(  # noqa: PLR0913 - all that a delta is made of
    groups: Sequence[Group],
    ranges: Ranges,
    sources: int,
    places: Sequence[int],
    base: Path,
    *,
    arm: bool,
) -> Imaging:
    """Return the images of the programs that are matched with old ones.

    Args:
        groups: the groups.
        ranges: of their files.
        sources: how many old files there are in virtual order.
        places: of the made files that follow them.
        base: where images are kept for the tasks.
        arm: AArch64 programs get one, too.

    Raises:
        BrokenError: a file changed meanwhile.
        OSError: the disk refused.

    Power cut: nothing reads the files in `base` again.
    """
    out = none(groups)
    native = matching.compiled()
    if native is None:
        return out
    album = _Album(native, base, arm=arm)
    listed: dict[int, Rows] = {}
    size = 0
    for number, group in enumerate(groups):
        old, new = ranges.old(group), ranges.new(group)
        old_images, new_images = album.look(old, new)
        if not any(old_images):
            continue
        more: dict[int, Rows] = {}
        for piece, image in zip(new, new_images, strict=True):
            if image is not None:
                more[sources + piece.file] = (image.rows[0], b"", b"")
        more |= {file: listed[file] for file in more if file in listed}
        for piece, image in zip(old, old_images, strict=True):
            if image is not None:
                again = piece.file - sources
                more[piece.file if again < 0 else sources + places[again]] = image.rows
        length = len(images.encode(more))
        if _is_still(old, new, new_images, length):
            continue
        size += length
        if size > images.MAX_BYTES or not _acceptable(listed | more):
            continue
        listed |= more
        out.arm |= any(image is not None and image.arm for image in old_images)
        out.groups[number] = (_paths(old_images), _paths(new_images))
    out.stream = images.encode(listed) if listed else b""
    return out


def _is_still(
    old: Sequence[Piece], new: Sequence[Piece], images: "_Some", length: int
) -> bool:
    """Tell whether so few bytes differ in programs that their images would cost more.

    A version, a hash, a date: nothing moved, and an image packs to about half.

    Args:
        old: what is matched with.
        new: what is made.
        images: of the new ones.
        length: bytes of the images to be written.

    Raises:
        BrokenError: a file changed meanwhile.
        OSError: the disk refused.
    """
    before, room = [piece.range for piece in old], length // 2
    for piece, image in zip(new, images, strict=True):
        if image is not None and room >= 0:
            room -= stillness.differing(before, piece.range, room)
    return room >= 0


def _acceptable(listed: Mapping[int, Rows]) -> bool:
    """Tell whether readers take so many images, regions and tables."""
    regions = sum(len(regions) for _, regions, _ in listed.values()) // 64
    tables = sum(len(tables) for _, _, tables in listed.values()) // 16
    return (
        len(listed) <= images.MAX_IMAGES
        and regions <= images.MAX_ALL_REGIONS
        and tables <= images.MAX_ALL_TABLES
    )


@dataclass(frozen=True, slots=True)
class _Described:
    path: str
    rows: Rows
    arm: bool


_Some = list[_Described | None]


def _paths(images: _Some) -> list[str | None]:
    return [None if image is None else image.path for image in images]


class _Album:
    """Describes every file once."""

    def __init__(self, native: ModuleType, base: Path, *, arm: bool) -> None:
        self._native = native
        self._arm = arm
        self._base = base
        self._images: dict[str, _Described | None] = {}

    def look(self, old: Sequence[Piece], new: Sequence[Piece]) -> tuple[_Some, _Some]:
        """Return the images of a group's files; none of old ones that nothing needs.

        Raises:
            BrokenError: a file changed meanwhile.
            OSError: the disk refused.
        """
        if not all(piece.whole for piece in (*old, *new)):
            return [], []
        new_images = [self._known(piece) for piece in new]
        return [self._known(piece) for piece in old] if any(
            new_images
        ) else [], new_images

    def _known(self, piece: Piece) -> _Described | None:
        path = piece.range[0]
        if path not in self._images:
            self._images[path] = self._describe(piece)
        return self._images[path]

    def _describe(self, piece: Piece) -> _Described | None:
        path, _, length = piece.range
        if length < LEAST_CODE or not elf.is_one(path):
            return None
        with apart(piece.range) as data:
            program = elf.describe(data)
            if program is None or program.code < LEAST_CODE:
                return None
            if program.arm and not self._arm:
                return None
            rows = (program.segments, program.regions, b"")
            try:
                tables = self._native.tables(data, self._native.Image(*rows))
            except ValueError:
                return None  # more than the reader would take
        rows = (*rows[:2], _fitting(tables, program.room))
        rows_path = self._base / f"image{len(self._images)}"
        matching.save(rows_path, *rows)
        return _Described(str(rows_path), rows, program.arm)


def _fitting(tables: bytes, room: int) -> bytes:
    """Return as many jump tables as an image may list."""
    rows = array("q", tables)
    fitting = 0
    for entries in rows[1 : 2 * MAX_TABLES : 2]:
        room -= entries
        if room < 0:
            break
        fitting += 1
    return rows[: 2 * fitting].tobytes()
