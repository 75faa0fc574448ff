# SPDX-License-Identifier: Apache-2.0
"""Old files that were made to hurt: what comes out of all decoders is counted."""

import os
import zlib
from array import array

import pytest

from updaterd.artifact.archives.inflating import Allowance, DamagedError, inflate
from updaterd.artifact.archives.layout import CLOSE, GROUND

OPEN = -2


def deflated(*parts):
    """One raw stream; a part that comes again comes out the same."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(map(encoder.compress, parts)) + encoder.flush()


def bomb():
    """A stream of one byte, behind more blocks of nothing than may be inflated."""
    nothing = b"\0\0\0\xff\xff" * (1 << 18)
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = encoder.compress(nothing) + encoder.flush(zlib.Z_FULL_FLUSH)
    end = deflated(b"\x01\x01\0\xfe\xffZ")
    return deflated(*[piece] * (GROUND // len(nothing) + 1), end)


BOMB_STEPS = array("q", [0, OPEN, 0, OPEN, 0, OPEN, 1, *[CLOSE, 0] * 3])


def run(data, steps, allowance):
    fd = os.memfd_create("old")
    out = bytearray()
    try:
        os.write(fd, data)
        allowance.begin(len(data))
        inflate(fd, steps, out.extend, allowance)
    finally:
        os.close(fd)
    return bytes(out)


def test_streams_that_are_packed_in_others_count_and_leave_the_others_their_share():
    """One byte is listed; what lies between it and the file is what hurts."""
    allowance = Allowance()
    with pytest.raises(DamagedError):
        run(bomb(), BOMB_STEPS, allowance)
    sound = os.urandom(1000)
    steps = array("q", [0, OPEN, len(sound), CLOSE, 0])

    assert run(deflated(sound), steps, allowance) == sound


def test_streams_in_streams_within_the_bound_are_inflated():
    data = deflated(deflated(deflated(b"Z")))

    assert run(data, BOMB_STEPS, Allowance()) == b"Z"
