# SPDX-License-Identifier: Apache-2.0
"""Fuzz the event-stream parser, guided by coverage. A longer run than the tests do.

    pip install 'updaterd[fuzz]'
    python tests/fuzz/fuzz_sse.py -max_total_time=600 -rss_limit_mb=512

What must hold for any bytes, any limits and any cuts: only the parser's own error
comes out; the cuts change neither events nor id, retry or error; what one stream
makes the parser hold stays within its limits; and what comes out can be read as
announcements without any other error than `MalformedError`.
"""

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["updaterd"]):
    from updaterd.core.events import parse
    from updaterd.core.sse import LimitError, Limits, Parser
    from updaterd.errors import MalformedError

SMALL = Limits(line=24, event=40)


def run(pieces, limits):
    parser = Parser(limits=limits)
    events = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
    except LimitError as error:
        return events + list(error.events), parser.last_event_id, None, str(error)
    return events, parser.last_event_id, parser.retry_ms, ""


def one(data):
    source = atheris.FuzzedDataProvider(data)
    limits = SMALL if source.ConsumeBool() else None
    sizes = source.ConsumeIntListInRange(source.ConsumeIntInRange(0, 12), 0, 40)
    stream = source.ConsumeBytes(sys.maxsize)
    pieces, start = [], 0
    for size in sizes:
        pieces.append(stream[start : start + size])
        start += size
    pieces.append(stream[start:])
    whole = run([stream], limits)
    cut = run(pieces, limits)
    assert cut == whole, f"the cuts made a difference: {pieces} {limits} {cut} {whole}"
    for event in whole[0]:
        assert "\0" not in event.id
        assert event.event
        if limits is not None:
            assert len(event.data) <= limits.event
        for kind in ("update_available", "metadata", "resync", "hello"):
            with contextlib.suppress(MalformedError):
                parse(kind, event.data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
