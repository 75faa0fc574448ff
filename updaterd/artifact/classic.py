# SPDX-License-Identifier: Apache-2.0
"""Is this machine's zlib the one that deflates as zlib 1.2.x and 1.3.x do?

Many libraries answer to zlib's name, and deflate the same bytes to others: zlib-ng,
Chromium's, Intel's, the accelerator of IBM Z. Which one is here says what it makes, not
what it is called. One that is told apart by nothing here makes a file with a wrong
hash: that costs another download, and never a wrong file.
"""

from __future__ import annotations

import zlib
from hashlib import sha256

from updaterd.core.frozen import record

KNOWN = "f92bd1a848cb455ada3c3137b6ecddd59257cabc0dd0774aca3d6077695d26ab"
"""What classic zlib makes of `_sample`, all together: SHA-256."""

LEVELS = range(1, 10)
CHUNK = 1 << 16
"""Bytes that an encoder is fed at a time: part of the format."""


@record
class Encoder:
    """How a stream was deflated: what zlib calls them.

    Attributes:
        level: 1 to 9.
        memory: 1 to 9.
        strategy: 0 to 4.
        window: bits, 9 to 15.
    """

    level: int
    memory: int = 8
    strategy: int = 0
    window: int = 15

    def start(self) -> zlib._Compress:
        """Return an encoder that makes a raw deflate stream."""
        return zlib.compressobj(
            self.level, zlib.DEFLATED, -self.window, self.memory, self.strategy
        )


def deflated(data: bytes | memoryview, encoder: Encoder) -> bytes:
    """Return what an encoder makes of some bytes, fed as machines feed it."""
    encoding = encoder.start()
    parts = [
        encoding.compress(data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)
    ]
    return b"".join([*parts, encoding.flush()])


def _sample() -> bytes:
    """Return 40,000 bytes with short and long matches, near and far, and noise."""
    state, out = 1, bytearray()
    words = [b"%x;" % (n * n * 2654435761 % 2**20) for n in range(97)]
    while len(out) < 40_000:
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        pick = state >> 16
        if pick % 11:
            out += words[pick % 97]
        elif pick % 3 and out:
            at = pick * 31 % len(out)
            out += out[at : at + 4 + pick % 300]
        else:
            out += state.to_bytes(4, "little")
    return bytes(out)


def fingerprint() -> str:
    """Return a hash of all that this machine's zlib makes of the sample."""
    data = _sample()
    state = sha256()
    for level in LEVELS:
        state.update(deflated(data, Encoder(level)))
    for encoder in (Encoder(6, 9), Encoder(9, 9), Encoder(6, 1), Encoder(6, 8, 1)):
        state.update(deflated(data[:16_000], encoder))
    return state.hexdigest()


_checked: list[bool] = []


def is_here() -> bool:
    """Tell whether this machine's zlib is the classic one."""
    if not _checked:
        _checked.append(fingerprint() == KNOWN)
    return _checked[0]
