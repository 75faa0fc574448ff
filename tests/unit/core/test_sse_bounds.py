# SPDX-License-Identifier: Apache-2.0
"""What a hostile stream may cost: counted in bytes held, not in seconds."""

import tracemalloc

import pytest

from updaterd.core.sse import LimitError, Limits, Parser

LIMITS = Limits(line=2**16, event=2**17)
CHUNK = 2**14

HOSTILE = {
    "a line without end": b"x" * CHUNK,
    "data without end": b"data: y\n" * (CHUNK // 8),
    "empty data without end": b"data\n" * (CHUNK // 5),
    "wide characters": ("data: " + "😀" * 8 + "\n").encode() * (CHUNK // 40),
    "unknown fields": b"foo: bar\n" * (CHUNK // 9),
    "comments": b":\n" * (CHUNK // 2),
    "heartbeats": b":\n\n" * (CHUNK // 3),
    "events without data": b"id: z\n\n" * (CHUNK // 7),
    "ids": b"id: z\n" * (CHUNK // 6),
    "blank lines": b"\n" * CHUNK,
    "carriage returns": b"\r" * CHUNK,
    "nothing but boms": b"\xef\xbb\xbf" * (CHUNK // 3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_held_is_bounded(name):
    """Three megabytes of anything: at most ten times the limits, half of that, stay."""
    chunk = HOSTILE[name]
    parser = Parser(limits=LIMITS)
    tracemalloc.start()
    try:
        for _ in range(3 * 2**20 // len(chunk)):
            parser.feed(chunk)
    except LimitError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10 * (LIMITS.event + CHUNK)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [b"xy", b"\xf0\x9f\x98", b"data:a\n"])
def test_tiny_pieces_of_something_large_hold_little(piece):
    """What comes in the smallest pieces costs no more than what comes at once."""
    parser = Parser(limits=LIMITS)
    tracemalloc.start()
    try:
        while True:
            parser.feed(piece)
    except LimitError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10 * LIMITS.event


@pytest.mark.parametrize("piece", [b"x", b"data: a\n", b"id: 1\n", b":\n\n", b"\r"])
def test_a_stream_of_tiny_pieces_is_linear(piece):
    """Every call touches at most what it brings and what is held back: counted by
    the bytes it allocates, which would grow with a quadratic copy.
    """
    parser = Parser(limits=Limits(line=2**20, event=2**21))

    def cost(pieces):
        tracemalloc.start()
        for _ in range(pieces):
            parser.feed(piece)
        current, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak - current

    cost(6000)
    early = cost(6000)
    late = cost(6000)
    assert late < early + 2**16


@pytest.mark.parametrize("cut", [1, 7, 4096, 10**6])
@pytest.mark.parametrize("field", ["id: {}", "id:{}"])
def test_an_id_beyond_its_limit_is_ignored(cut, field):
    """As one with a NUL is: the stream is resumed from the id before it."""
    parser = Parser(limits=Limits(id=100))
    text = "".join(
        field.format(value) + "\ndata: x\n\n" for value in ("1", "y" * 101, "z" * 100)
    ).encode()
    events = [
        event
        for start in range(0, len(text), cut)
        for event in parser.feed(text[start : start + cut])
    ]
    assert [(e.id, e.identified) for e in events] == [
        ("1", True), ("1", False), ("z" * 100, True),
    ]  # fmt: skip
    assert parser.last_event_id == "z" * 100
