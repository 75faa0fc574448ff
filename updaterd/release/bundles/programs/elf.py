# SPDX-License-Identifier: Apache-2.0
"""Where a program's references are, by its own headers: ELF, 64 bits.

Of x86-64, and of AArch64, little-endian.

What comes out is the image that a delta describes it by (docs/formats.md). Headers are
taken at their word only as far as the format allows: what is odd is left out, and a
file that cannot be described is a file like any other.
"""

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from mmap import mmap
from pathlib import Path

from updaterd.artifact.programs.image import (
    ARM,
    CODE,
    FRAMES,
    FUNCTIONS,
    MAX_LISTED,
    MAX_REGIONS,
    MAX_SEGMENTS,
    TABLE,
    WORDS,
)

MAGIC = b"\x7fELF\x02\x01\x01"
"""64 bits, little-endian, version 1."""
_LONGEST = 1 << 32
_HIGHEST = 1 << 53

_HEADER = struct.Struct("<16x HHI QQQ I HHHHHH")
_SEGMENT = struct.Struct("<II QQQQQQ")
_SECTION = struct.Struct("<II QQQQ II QQ")
_TYPES = {2, 3}  # ET_EXEC, ET_DYN
_CODE = {62: CODE, 183: ARM}  # EM_X86_64, EM_AARCH64: kinds of regions
_EXECUTABLE, _LOAD = 2, 1
_PROGBITS, _RELA, _NOBITS, _UNWIND = 1, 4, 8, 0x70000001
# Besides: DYNAMIC, DYNSYM, INIT_, FINI_, PREINIT_ARRAY, RELR.
_POINTERS = {_RELA, 6, 11, 14, 15, 16, 19}
_WRITE, _ALLOC, _RUN, _THREAD = 1, 2, 4, 0x400

_PCREL = 0x1B  # DW_EH_PE_pcrel | sdata4
_SORTED = bytes((1, _PCREL, 3, 0x3B))  # .eh_frame_hdr: its table is datarel | sdata4
_TO_TABLE = 12
_GO_MAGICS = {0xFFFFFFF0, 0xFFFFFFF1}  # Go 1.18, 1.20 and later
_GO_HEADER = struct.Struct("<I4x QQ QQQQQQ")
_GO_FUNCTION = 44  # bytes of one, without what varies
_GO_TEXT, _GO_FUNCTION_DATA = 176, 320  # in moduledata

Data = bytes | mmap
Segment = tuple[int, int, int, int, int]
"""Offset, address, bytes in the file, bytes in memory, whether it is code."""
Region = tuple[int, ...]
"""Kind, offset, length, five parameters."""


@dataclass(frozen=True, slots=True)
class Program:
    """An image, in the rows that `Image` takes.

    Attributes:
        segments: of five numbers.
        regions: of eight.
        code: bytes of code in them.
        room: how many references its jump tables may list.
        arm: it is of AArch64.
    """

    segments: bytes
    regions: bytes
    code: int
    room: int
    arm: bool


@dataclass(frozen=True, slots=True)
class _Section:
    name: bytes
    kind: int
    flags: int
    address: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def is_one(path: str | Path) -> bool:
    """Tell whether a file begins as a program does that may have an image.

    Raises:
        OSError: the disk refused.
    """
    with open(path, "rb", buffering=0) as file:
        return file.read(len(MAGIC)) == MAGIC


def is_known(path: str | Path, *, arm: bool) -> bool:
    """Tell whether a file begins as a program of a processor that is known here.

    Args:
        path: of the file.
        arm: AArch64 is one.

    Raises:
        OSError: the disk refused.
    """
    with open(path, "rb", buffering=0) as file:
        start = file.read(20)
    known = {machine for machine, code in _CODE.items() if arm or code != ARM}
    machine = int.from_bytes(start[18:], "little")
    return start[: len(MAGIC)] == MAGIC and machine in known


def describe(data: Data) -> Program | None:
    """Return the image of a program, or None: it is none that can be described.

    Args:
        data: the whole file, whatever it is.
    """
    try:
        return _describe(data)
    except (struct.error, IndexError, OverflowError):
        return None  # cut short, or its headers point nowhere


def _describe(data: Data) -> Program | None:
    if data[: len(MAGIC)] != MAGIC or len(data) >= _LONGEST:
        return None
    (kind, machine, _, _, at, sections_at, _, _, size, count, row, rows, names) = (
        _HEADER.unpack_from(data)
    )
    if kind not in _TYPES or machine not in _CODE or size != _SEGMENT.size:
        return None
    loaded = [_SEGMENT.unpack_from(data, at + size * i) for i in range(count)]
    segments = sorted(
        (offset, address, stored, memory, flags & 1)
        for kind_, flags, offset, address, _, stored, memory, _ in loaded
        if kind_ == _LOAD and stored
    )
    if not _possible(segments, len(data)):
        return None
    known = list(_sections(data, sections_at, row, rows, names))
    sections = [section for section in known if _inside(section, segments)]
    segments = _split(segments, [s for s in known if s.kind == _NOBITS])
    if any(section.flags & _RUN for section in sections):
        fixed = kind == _EXECUTABLE
        regions = _regions(data, sections, segments, _CODE[machine], fixed=fixed)
    else:  # stripped of them
        regions = [
            (_CODE[machine] if code else WORDS, offset, stored, 0, 0, 0, 0, 0)
            for offset, _, stored, _, code in segments
            if stored
        ]
    listed = sorted(sorted(regions, key=lambda r: -r[2])[:MAX_REGIONS], key=_place)
    room = MAX_LISTED - sum(map(_listed, listed))
    while room < 0:
        most = max(listed, key=_listed)
        listed.remove(most)
        room += _listed(most)
    code = sum(region[2] for region in listed if region[0] == _CODE[machine])
    arm = _CODE[machine] == ARM
    return Program(_flat(segments), _flat(listed), code, room, arm)


def _flat(rows: Sequence[tuple[int, ...]]) -> bytes:
    return array("q", (number for row in rows for number in row)).tobytes()


def _place(region: Region) -> int:
    return region[1]


def _possible(segments: Sequence[Segment], length: int) -> bool:
    """Tell whether they are what an image may have."""
    if not 0 < len(segments) <= MAX_SEGMENTS:
        return False
    by_address = sorted(segments, key=lambda s: s[1])
    return (
        all(
            offset + stored <= length
            and stored <= memory
            and address + memory < _HIGHEST
            for offset, address, stored, memory, _ in segments
        )
        and all(a[0] + a[2] <= b[0] for a, b in pairwise(segments))
        and all(a[1] + a[3] <= b[1] for a, b in pairwise(by_address))
    )


def _sections(
    data: Data, at: int, size: int, count: int, names: int
) -> Iterator[_Section]:
    """Yield the sections that are loaded; none where their table is odd."""
    if size != _SECTION.size or not at or at + size * count > len(data):
        return
    rows = [_SECTION.unpack_from(data, at + size * i) for i in range(count)]
    if not names < count:
        return
    text = rows[names][4]
    for name, kind, flags, address, offset, length, *_ in rows:
        if length and flags & (_ALLOC | _THREAD) == _ALLOC:
            start = text + name
            label = data[start : start + 64].split(b"\0", 1)[0]
            yield _Section(label, kind, flags, address, offset, length)


def _inside(section: _Section, segments: Sequence[Segment]) -> bool:
    """Tell whether one segment stores all of a section."""
    return section.kind != _NOBITS and any(
        s[0] <= section.offset
        and section.end <= s[0] + s[2]
        and section.address - s[1] == section.offset - s[0]
        for s in segments
    )


def _split(segments: Sequence[Segment], blank: Sequence[_Section]) -> list[Segment]:
    """Return segments with each section that is not stored as one of its own.

    It is aligned by itself, so what it holds does not move as what is stored does.
    """
    out: list[Segment] = []
    for offset, address, stored, memory, code in segments:
        end, last = offset + stored, address + memory
        parts = [(offset, address, stored, memory, code)]
        for section in sorted(blank, key=lambda s: s.address):
            start, _, size, _, _ = parts[-1]
            low, high = section.address, section.address + section.size
            if low >= parts[-1][1] + size and low >= address + stored and high <= last:
                parts[-1] = (start, parts[-1][1], size, low - parts[-1][1], code)
                parts.append((end, low, 0, last - low, code))
        out += parts
    return out if len(out) <= MAX_SEGMENTS else list(segments)


def _regions(
    data: Data,
    sections: Sequence[_Section],
    segments: Sequence[Segment],
    code: int,
    *,
    fixed: bool,
) -> list[Region]:
    """Return a region of each section that has one; sections do not overlap then.

    Args:
        data: the program.
        sections: of it.
        segments: of it.
        code: the kind of regions of code.
        fixed: it is loaded where it was linked to, so its constants hold addresses.
    """
    special: dict[bytes, Callable[[_Section], Region | None]] = {
        b".eh_frame": partial(_frames, data),
        b".eh_frame_hdr": partial(_table, data),
        b".gopclntab": partial(_functions, data, segments),
        b".data.rel.ro.gopclntab": partial(_functions, data, segments),
    }
    regions: list[Region] = []
    end = 0
    for section in sorted(sections, key=lambda s: s.offset):
        if section.offset < end:
            continue
        region: Region | None = None
        if section.name in special:
            region = special[section.name](section)
        elif section.kind == _PROGBITS and section.flags & _RUN:
            region = _region(code, section.offset, section.size)
        elif section.kind in _POINTERS or (
            section.kind == _PROGBITS and (fixed or section.flags & _WRITE)
        ):
            region = _region(WORDS, section.offset, section.size)
        if region is not None:
            regions.append(region)
            end = section.end
    return regions


def _region(kind: int, start: int, length: int, *parameters: int) -> Region:
    return (kind, start, length, *parameters, *(0,) * (5 - len(parameters)))


def _listed(region: Region) -> int:
    """Return how many references a region lists, at most."""
    kind, _, length, count, *_ = region
    if kind == FRAMES:
        return length // 7  # three of at least 21 bytes
    if kind == TABLE:
        return length // 4
    if kind == FUNCTIONS:
        varies = max(0, length - (8 + _GO_FUNCTION) * count)
        return 7 * count + varies // 4
    return 0


def _frames(data: Data, section: _Section) -> Region | None:
    """Return the region of .eh_frame, when it has the encoding that compilers use."""
    if section.kind not in {_PROGBITS, _UNWIND}:
        return None
    length, number, version = struct.unpack_from("<IIB", data, section.offset)
    entry = data[section.offset + 9 : section.offset + 4 + min(length, 256)]
    text, _, rest = entry.partition(b"\0")
    if number or version != 1 or not text.startswith(b"z"):
        return None
    # Two alignments and the number of the return register; then what `text` names.
    at = 0
    for _ in range(2):
        while rest[at] & 0x80:
            at += 1
        at += 1
    at += 2  # the register, and the length of what follows: a byte each
    for letter in text[1:].decode("ascii", "replace"):
        if letter == "R":
            start = section.offset, section.size
            return _region(FRAMES, *start) if rest[at] == _PCREL else None
        if letter == "P":
            at += {0: 9, 2: 3, 3: 5, 4: 9}.get(rest[at] & 7, 256)
        elif letter == "L":
            at += 1
        elif letter not in "SB":
            return None
    return None


def _table(data: Data, section: _Section) -> Region | None:
    """Return the region of .eh_frame_hdr's table."""
    if data[section.offset : section.offset + 4] != _SORTED:
        return None
    (count,) = struct.unpack_from("<I", data, section.offset + 8)
    length = min(8 * count, (section.size - _TO_TABLE) & ~3)
    if length <= 0:
        return None
    return _region(TABLE, section.offset + _TO_TABLE, length, section.address)


def _functions(
    data: Data, segments: Sequence[Segment], section: _Section
) -> Region | None:
    """Return the region of Go's function table (go.dev/src/runtime/symtab.go)."""
    magic, count, _, text, names, _, _, values, functions = _GO_HEADER.unpack_from(
        data, section.offset
    )
    length = section.size - functions
    if magic not in _GO_MAGICS or not 0 < 8 * count <= length:
        return None
    module = struct.pack("<QQ", section.address, section.address + names)
    at = data.rfind(module)
    function_data = 0
    if at >= 0:
        (function_data,) = struct.unpack_from("<Q", data, at + _GO_FUNCTION_DATA)
        if not text:  # Go 1.25 and later leave it to moduledata
            (text,) = struct.unpack_from("<Q", data, at + _GO_TEXT)
    if not any(s[4] and s[1] <= text < s[1] + s[3] for s in segments):
        return None
    if not any(s[1] <= function_data < s[1] + s[3] for s in segments):
        function_data = 0
    base = section.address
    parameters = (count, text, base + names, base + values, function_data)
    if max(parameters) >= _HIGHEST:
        return None
    return _region(FUNCTIONS, section.offset + functions, length, *parameters)
