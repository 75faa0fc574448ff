# SPDX-License-Identifier: Apache-2.0
"""Bytes of the feed: Server-Sent Events (WHATWG HTML 9.2), encoded once for all.

A `Frame` holds one block twice: plain, and wrapped as an HTTP/1.1 chunk (RFC 9112
section 7.1) for streams that write to the socket themselves.
"""

from collections.abc import Iterable
from typing import NamedTuple

from updaterd.server.log.contract import Position, Record, write_id


class Frame(NamedTuple):
    """One block of the stream, ready to be written."""

    plain: bytes
    chunk: bytes


def frame(plain: bytes) -> Frame:
    """Return the block with its chunked form."""
    return Frame(plain, b"%x\r\n%b\r\n" % (len(plain), plain))


def join(parts: Iterable[Frame]) -> Frame:
    """Return several blocks as one."""
    plains, chunks = zip(*parts, strict=True)
    return Frame(b"".join(plains), b"".join(chunks))


HEARTBEAT = frame(b":\n\n")
LAST_CHUNK = b"0\r\n\r\n"


def of_record(epoch: str, record: Record) -> Frame:
    """Return the frame of an event from the log."""
    return block(write_id(epoch, record.position), record.event.name, record.event.data)


def block(event_id: str, name: str, data: bytes) -> Frame:
    """Return the frame of an event; `data` holds no line breaks."""
    return frame(
        b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), name.encode(), data)
    )


def hello(epoch: str, last: Position, heartbeat_s: float) -> Frame:
    """Return the greeting: a client that never saw a release still gets a cursor."""
    data = b'{"heartbeat_s":%g}' % heartbeat_s
    return block(write_id(epoch, last), "hello", data)


def resync(epoch: str, last: Position, reason: str) -> Frame:
    """Return the order to reconcile from signed metadata, with the cursor now."""
    return block(write_id(epoch, last), "resync", b'{"reason":"%b"}' % reason.encode())


def retry(ms: int) -> Frame:
    """Return the reconnection time this stream is given, in milliseconds."""
    return frame(b"retry: %d\n\n" % ms)
