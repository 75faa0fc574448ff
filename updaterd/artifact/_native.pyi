# What updaterd/artifact/native/*.c exports, where there was a compiler.
from collections.abc import Callable, Sequence

from typing_extensions import Buffer

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

def tables(data: Buffer, image: Image, /) -> bytes: ...
