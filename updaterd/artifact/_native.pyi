# SPDX-License-Identifier: Apache-2.0
# What updaterd/artifact/native/*.c exports, where there was a compiler.
from collections.abc import Callable, Sequence

from typing_extensions import Buffer

# Numbers of the delta format.
WIDEST: int
LONGEST_GAP: int
PIECE: int
CHUNK: int
MAX_SEGMENTS: int
MAX_REGIONS: int
MAX_TABLES: int
MAX_LISTED: int
MAX_PARTS: int
PARAMETERS: int
CODE: int
WORDS: int
FRAMES: int
TABLE: int
FUNCTIONS: int
ARM: int
RELATIVE: int
ABSOLUTE: int
OFFSET: int
BACK: int
STEP: int
WINDOW: int

class Image:
    def __init__(self, segments: Buffer, regions: Buffer, tables: Buffer) -> None: ...

class Projector:
    def __init__(
        self,
        read: Callable[[int, int], bytes],
        starts: Buffer,
        lengths: Buffer,
        images: Sequence[Image | None],
    ) -> None: ...
    def aim(
        self, image: Image, starts: Buffer, lengths: Buffer, news: Buffer, /
    ) -> None: ...
    def project(
        self, data: bytearray, starts: Buffer, lengths: Buffer, news: Buffer, /
    ) -> None: ...
    def mask(self, data: bytearray, index: int, /) -> None: ...
    def label(self, data: bytearray, index: int, aimed: bool, /) -> None: ...

def shifted(column: Buffer, less: int, /) -> bytes: ...
def tables(data: Buffer, image: Image, /) -> bytes: ...
def operations(
    planes: Buffer,
    lengths: int,
    extras: int,
    skips: int,
    position: int,
    old_size: int,
    /,
) -> tuple[bytes, int]: ...
def triples(control: Buffer, position: int, old_size: int, /) -> tuple[bytes, int]: ...
def runs(planes: Buffer, at: int, /) -> bytes: ...
def changed(runs: Buffer, first: int, at: int, stop: int, /) -> tuple[int, int]: ...
def add(
    data: bytearray,
    done: int,
    runs: Buffer,
    first: int,
    at: int,
    stop: int,
    changes: Buffer,
    /,
) -> None: ...
def add_all(data: bytearray, diff: Buffer, /) -> None: ...
def weave(
    copied: Buffer, lengths: Buffer, extra: Buffer, extras: Buffer, /
) -> bytearray: ...
def gather(
    starts: Buffer,
    ends: Buffer,
    piece: Callable[[int], tuple[int, int, int] | tuple[int, int, int, int]],
    /,
) -> tuple[bytearray, int]: ...
