# SPDX-License-Identifier: Apache-2.0
"""Event streams, from WHATWG HTML 9.2.5-9.2.6 and the behaviour of the web platform's
own event-source tests. Every vector is fed whole, byte by byte, and cut at random.
"""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.sse import MAX_RETRY_MS, LimitError, Limits, Parser


@dataclass(frozen=True)
class Vector:
    name: str
    stream: bytes
    events: tuple  # (id, type, data)
    last_id: str = ""
    retry: int | None = None

    def __str__(self):
        return self.name


def v(name, stream, *events, last_id=None, retry=None):
    """An event is its data, (type, data) or (id, type, data)."""
    full = []
    for event in events:
        parts = (event,) if isinstance(event, str) else event
        full.append((*("", "message")[: 3 - len(parts)], *parts))
    if last_id is None:
        last_id = full[-1][0] if full else ""
    return Vector(name, stream, tuple(full), last_id, retry)


VECTORS = [
    # ---- line ends (9.2.5: CRLF, LF or CR) ----
    v("lf", b"data: a\n\n", "a"),
    v("crlf", b"data: a\r\n\r\n", "a"),
    v("cr", b"data: a\r\r", "a"),
    v("all kinds in one block", b"data: a\ndata: b\rdata: c\r\n\n", "a\nb\nc"),
    v("cr then crlf", b"data: a\r\r\ndata: b\r\n\r", "a", "b"),
    v("lf cr is two ends", b"data: a\n\rdata: b\n\r", "a", "b"),
    v("crlf is one end", b"data: a\r\ndata: b\r\n\r\n", "a\nb"),
    v("cr cr lf is two ends", b"data: a\r\r\n\r\ndata: b\r\r", "a", "b"),
    v("many blank lines", b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", "a", "b"),
    v("three blank lines between", b"data: a\n\n\ndata: b\n\n", "a", "b"),
    v("blank crs between", b"data: a\r\r\r\r\rdata: b\r\r", "a", "b"),
    v("newlines mixed, as the web platform", b"data:test\r\ndata\ndata:test\r\n\r\n",
      "test\n\ntest"),
    v("u+2028 ends no line", "data: a\u2028data: b\n\n".encode(), "a\u2028data: b"),
    v("u+2029 ends no line", "data: a\u2029b\n\n".encode(), "a\u2029b"),
    v("u+0085 ends no line", "data: a\x85b\n\n".encode(), "a\x85b"),
    v("vertical tab ends no line", b"data: a\x0bb\n\n", "a\x0bb"),
    v("form feed ends no line", b"data: a\x0cb\n\n", "a\x0cb"),
    v("file separators end no line", b"data: a\x1cb\x1dc\x1ed\n\n",
      "a\x1cb\x1dc\x1ed"),
    # ---- the end of the stream ----
    v("empty stream", b""),
    v("only blank lines", b"\n\r\n\r"),
    v("no final blank line", b"data: a\n\ndata: lost\n", "a"),
    v("no final line end", b"data: a\n\ndata: lost", "a"),
    v("half a field at the end", b"data: a\n\nda", "a"),
    v("an unfinished id is not committed", b"id: 1\ndata: a\n\nid: 2\n",
      ("1", "message", "a"), last_id="1"),
    v("an unfinished retry still counts", b"retry: 70\n", retry=70),
    # ---- BOM ----
    v("bom", b"\xef\xbb\xbfdata: a\n\n", "a"),
    v("two boms: the second belongs to a field", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n"
      b"data: b\n\n", "b"),
    v("bom in the middle", b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", "a", "c"),
    v("bom before a blank line", b"\xef\xbb\xbf\ndata: a\n\n", "a"),
    v("bom alone", b"\xef\xbb\xbf"),
    v("half a bom is a field name", b"\xef\xbbdata: a\n\ndata: b\n\n", "b"),
    v("bom within data stays", b"data: \xef\xbb\xbfa\n\n", "\ufeffa"),
    # ---- UTF-8 ----
    v("two bytes", "data: ok…é\n\n".encode(), "ok…é"),
    v("four bytes", "data: 😀\n\n".encode(), "😀"),
    v("an invalid byte", b"data: a\xffb\n\n", "a\ufffdb"),
    v("a cut sequence before a line end", b"data: a\xe2\x82\n\n", "a\ufffd"),
    v("a cut sequence does not eat the line end", b"data: a\xf0\x9f\x98\ndata: b\n\n",
      "a\ufffd\nb"),
    v("a lone continuation byte", b"data: \x80\n\n", "\ufffd"),
    v("an overlong slash", b"data: \xc0\xaf\n\n", "\ufffd\ufffd"),
    v("an encoded surrogate", b"data: \xed\xa0\x80\n\n", "\ufffd\ufffd\ufffd"),
    v("beyond u+10ffff", b"data: \xf4\x90\x80\x80\n\n", "\ufffd" * 4),
    v("latin-1 is not guessed", b"data: caf\xe9\n\n", "caf\ufffd"),
    v("a field name in utf-8", "däta: a\ndata: b\n\n".encode(), "b"),
    v("an event type in utf-8", "event: é\ndata: a\n\n".encode(), ("é", "a")),
    # ---- fields ----
    v("no space", b"data:a\n\n", "a"),
    v("one space is dropped", b"data: a\n\n", "a"),
    v("only one space is dropped", b"data:  a\n\n", " a"),
    v("a tab stays", b"data:\ta\n\n", "\ta"),
    v("trailing space stays", b"data: a \n\n", "a "),
    v("a value of one space is empty", b"data: \n\n", ""),
    v("empty value", b"data:\n\n", ""),
    v("no colon", b"data\n\n", ""),
    v("two empty lines of data", b"data\ndata\n\n", "\n"),
    v("colon in the value", b"data: a: b:c\n\n", "a: b:c"),
    v("value of a colon", b"data::\n\n", ":"),
    v("data three times", b"data:\ndata: x\ndata:\n\n", "\nx\n"),
    v("mixed forms", b"data: a\ndata:b\ndata\ndata:  c\n\n", "a\nb\n\n c"),
    v("long run of data lines", b"data: x\n" * 500 + b"\n", "\n".join("x" * 500)),
    v("names are case-sensitive", b"Data: a\nDATA: b\ndata: c\n\n", "c"),
    v("a space before the colon is another name", b"data : a\ndata: b\n\n", "b"),
    v("a leading space is another name", b" data: a\ndata: b\n\n", "b"),
    v("a leading tab is another name", b"\tdata: a\n\n"),
    v("a prefix is another name", b"dat: a\ndataa: b\ndata: c\n\n", "c"),
    v("unknown fields", b"test: 1\nfoo\ndata: a\nbar:\n\n", "a"),
    v("nul in data stays", b"data: a\0b\n\n", "a\0b"),
    v("nul in a name", b"data\0: a\ndata: b\n\n", "b"),
    v("field parsing, as the web platform",
      b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
      b"data:3\rdata:\r\n data:32\ndata:4\n\n", "\0\n 2\n1\n3\n\n4"),
    # ---- comments ----
    v("comment", b": hi\n\ndata: a\n\n", "a"),
    v("empty comment", b":\ndata: a\n\n", "a"),
    v("comment within a block", b"data: a\n: hi\ndata: b\n\n", "a\nb"),
    v("comment that looks like a field", b":data: a\ndata: b\n\n", "b"),
    v("comment with nul", b":\0\ndata: a\n\n", "a"),
    v("long comment", b":" + b"x" * 5000 + b"\ndata: a\n\n", "a"),
    v("heartbeats only", b":\n\n:\n\n: hb\n\n"),
    # ---- event ----
    v("type", b"event: t\ndata: a\n\n", ("t", "a")),
    v("type after data", b"data: a\nevent: t\n\n", ("t", "a")),
    v("the last type counts", b"event: t\nevent: u\ndata: a\n\n", ("u", "a")),
    v("an empty type is message", b"event:\ndata: a\n\n", "a"),
    v("an empty type undoes one", b"event: t\nevent\ndata: a\n\n", "a"),
    v("type lasts one block", b"event: t\ndata: a\n\ndata: b\n\n", ("t", "a"), "b"),
    v("type without data is dropped", b"event: t\n\ndata: a\n\n", "a"),
    v("type keeps its spaces", b"event:  t \ndata: a\n\n", (" t ", "a")),
    # ---- id ----
    v("id", b"id: 1\ndata: a\n\n", ("1", "message", "a")),
    v("id lasts", b"id: 1\ndata: a\n\ndata: b\n\n", ("1", "message", "a"),
      ("1", "message", "b")),
    v("id without data is committed", b"id: 1\n\ndata: a\n\n", ("1", "message", "a")),
    v("id alone", b"id: 7\n\n", last_id="7"),
    v("empty id resets", b"id: 1\ndata: a\n\nid:\ndata: b\n\n", ("1", "message", "a"),
      "b"),
    v("id without colon resets", b"id: 1\n\nid\ndata: b\n\n", "b"),
    v("id with nul is ignored", b"id: 1\n\nid: 2\0\ndata: a\n\n",
      ("1", "message", "a")),
    v("id of nul alone is ignored", b"id: 1\n\nid:\0\ndata: a\n\n",
      ("1", "message", "a")),
    v("nul does not undo an id of the block", b"id: 1\nid: 2\0\ndata: a\n\n",
      ("1", "message", "a")),
    v("the last id counts", b"id: 1\nid: 2\ndata: a\n\n", ("2", "message", "a")),
    v("id after data", b"data: a\nid: 1\n\n", ("1", "message", "a")),
    v("id keeps its inner space", b"id:  1 \ndata: a\n\n", (" 1 ", "message", "a")),
    v("id in utf-8", "id: …\ndata: a\n\n".encode(), ("…", "message", "a")),
    v("equal data, different ids", b"id: 1\ndata: a\n\nid: 2\ndata: a\n\n",
      ("1", "message", "a"), ("2", "message", "a")),
    v("ID in capitals is unknown", b"ID: 1\ndata: a\n\n", "a"),
    # ---- retry ----
    v("retry", b"retry: 3000\n\n", retry=3000),
    v("retry without a blank line", b"retry:5\ndata: a\n\n", "a", retry=5),
    v("retry 0", b"retry: 0\n\n", retry=0),
    v("retry with leading zeros", b"retry: 000000000000000500\n\n", retry=500),
    v("the last retry counts", b"retry: 1\nretry: 2\n\n", retry=2),
    v("retry empty", b"retry: 1\nretry:\nretry\n\n", retry=1),
    v("retry with letters", b"retry: 1\nretry: 1000x\n\n", retry=1),
    v("retry negative", b"retry: 1\nretry: -1\n\n", retry=1),
    v("retry with a sign", b"retry: 1\nretry: +5\n\n", retry=1),
    v("retry fraction", b"retry: 1\nretry: 1.5\n\n", retry=1),
    v("retry exponent", b"retry: 1\nretry: 1e3\n\n", retry=1),
    v("retry with spaces", b"retry: 1\nretry:  5\nretry: 5 \n\n", retry=1),
    v("retry underscore, which int() takes", b"retry: 1\nretry: 1_000\n\n", retry=1),
    v("retry in arabic-indic digits, which int() takes",
      "retry: 1\nretry: ٣\n\n".encode(), retry=1),
    v("retry superscript, which isdigit() takes", "retry: 1\nretry: ²\n\n".encode(),
      retry=1),
    v("retry of 5000 digits, which int() refuses",
      b"retry: " + b"9" * 5000 + b"\n\n", retry=MAX_RETRY_MS),
    v("retry beyond a day is clamped", b"retry: 86400001\n\n", retry=MAX_RETRY_MS),
    # ---- dispatch ----
    v("no data, no event", b"event: t\nid: 1\nretry: 5\n\n", last_id="1", retry=5),
    v("everything at once",
      b": c\nid: 1\nevent: t\nretry: 9\ndata: a\ndata: b\n\n", ("1", "t", "a\nb"),
      retry=9),
    v("the standard's stocks", b"data: YHOO\ndata: +2\ndata: 10\n\n", "YHOO\n+2\n10"),
    v("the standard's four blocks",
      b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
      b"data:  third event\n", ("1", "message", "first event"), "second event"),
    v("the standard's two empty events", b"data\n\ndata\ndata\n\ndata:", "", "\n"),
    v("the standard's equal events", b"data:test\n\ndata: test\n\n", "test", "test"),
]  # fmt: skip


def run(pieces, limits=None):
    parser = Parser(limits=limits)
    events, error = [], ""
    try:
        for piece in pieces:
            events += parser.feed(piece)
    except LimitError as caught:
        events += caught.events
        error = caught.cause
    return events, parser, error


def check(vector, pieces):
    events, parser, error = run(pieces)
    assert not error
    assert tuple((e.id, e.event, e.data) for e in events) == vector.events
    assert parser.last_event_id == vector.last_id
    assert parser.retry_ms == vector.retry


def test_there_are_a_hundred_vectors():
    assert len(VECTORS) >= 100
    assert len({vector.name for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_fed_whole(vector):
    check(vector, [vector.stream])


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_fed_byte_by_byte(vector):
    check(vector, [vector.stream[i : i + 1] for i in range(len(vector.stream))])


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_fed_in_two_at_every_cut(vector):
    """Empty pieces around the cut change nothing either."""
    for cut in range(min(len(vector.stream), 600) + 1):
        check(vector, [b"", vector.stream[:cut], b"", vector.stream[cut:], b""])


def cuts(stream):
    return st.lists(st.integers(0, len(stream)), max_size=12).map(
        lambda at: [
            stream[a:b]
            for a, b in zip([0, *sorted(at)], [*sorted(at), len(stream)], strict=True)
        ]
    )


@given(st.data(), st.sampled_from(VECTORS))
def test_fed_at_random_cuts(data, vector):
    check(vector, data.draw(cuts(vector.stream)))


@given(st.data(), st.lists(st.sampled_from(VECTORS[:60]), max_size=5))
def test_streams_follow_one_another(data, vectors):
    """A finished stream leaves nothing behind that changes the next one's data."""
    ended = [x for x in vectors if x.stream.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))]
    ended = [x for x in ended if not x.stream.startswith(b"\xef\xbb")]
    stream = b"".join(x.stream for x in ended)
    events, _, error = run(data.draw(cuts(stream)))
    assert not error
    assert [e.data for e in events] == [e[2] for x in ended for e in x.events]


PIECES = st.sampled_from(
    [b"data", b"id", b"event", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\0",
     b"\xef\xbb\xbf", b"\xe2\x82\xac", b"\xff", b"a", b"12", b"data: x\n", b"\n\n"]
)  # fmt: skip
STREAMS = st.one_of(st.binary(max_size=200), st.lists(PIECES).map(b"".join))


LIMITS = st.none() | st.integers(1, 30).map(lambda n: Limits(line=n, event=2 * n))


@given(st.data(), STREAMS, LIMITS)
def test_cuts_never_matter(data, stream, limits):
    """Whatever the bytes and the limits: events, id, retry and error are the same."""
    whole, one, error = run([stream], limits)
    cut, other, cut_error = run(data.draw(cuts(stream)), limits)
    assert cut == whole
    assert cut_error == error
    assert other.last_event_id == one.last_event_id
    assert other.retry_ms == one.retry_ms


@pytest.mark.parametrize("size", range(4080, 4110))
def test_blocks_around_the_length_that_is_held_back(size):
    """However long an unfinished block is when it stops being held: same events."""
    head = b"id: 1\nevent: t\ndata: "
    stream = head + b"x" * (size - len(head) - 8) + b"\ndata: y" + b"\nretry: 5\n\n"
    whole, _, _ = run([stream])
    for cut in range(size - 12, size + 12):
        assert run([stream[:cut], stream[cut:]])[0] == whole
    assert run([stream[i : i + 1] for i in range(len(stream))])[0] == whole
    assert whole[0].data.endswith("x\ny")


def reference(stream):
    """9.2.6 to the letter, line by line, with no thought of speed."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events, last_id, next_id, data, kind = [], "", "", "", ""
    for line in lines:
        if not line:
            last_id = next_id
            if data:
                events.append((last_id, kind or "message", data.removesuffix("\n")))
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            next_id = value
    return events


@given(STREAMS)
def test_like_the_letter_of_the_standard(stream):
    events, _, error = run([stream])
    assert not error
    assert [(e.id, e.event, e.data) for e in events] == reference(stream)


# ---- what the standard leaves to us ----


def test_a_cr_dispatches_at_once():
    """An event is not held back for the LF that may follow its CR."""
    parser = Parser()
    assert [e.data for e in parser.feed(b"data: a\r\r")] == ["a"]
    assert parser.feed(b"\n") == []
    assert [e.data for e in parser.feed(b"data: b\r\n\r")] == ["b"]


def test_identified_only_by_its_own_id():
    """An inherited id does not make two events one."""
    events = Parser().feed(b"id: 1\ndata: a\n\ndata: a\n\nid: 1\ndata: a\n\n")
    assert [e.identified for e in events] == [True, False, True]
    assert [e.id for e in events] == ["1", "1", "1"]


def test_retry_belongs_to_its_block():
    events = Parser().feed(b"retry: 5\ndata: a\n\ndata: b\n\n")
    assert [e.retry for e in events] == [5, None]


def test_a_parser_goes_on_from_an_id():
    assert Parser(last_event_id="9").feed(b"data: a\n\n")[0].id == "9"


LIMITED = [
    ("line of data", b"data: " + b"x" * 20, b"\n\n"),
    ("comment", b":" + b"x" * 20, b"\n\n"),
    ("unknown field", b"x" * 21, b"\n\n"),
    ("id", b"id: " + b"x" * 20, b"\n\n"),
    ("many short data lines", b"data: 123456789\n" * 4, b"\n"),
    ("many empty data lines", b"data\n" * 40, b"\n"),
    ("no line end ever", b"y" * 1000, b""),
]


@pytest.mark.parametrize(("name", "head", "tail"), LIMITED)
def test_limits(name, head, tail):
    """Beyond a limit: a clear error, what came before is given out, nothing after."""
    limits = Limits(line=20, event=30)
    stream = b"data: a\n\n" + head + tail + b"data: b\n\n"
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        events, parser, error = run(pieces, limits)
        assert [e.data for e in events] == ["a"]
        assert "more than" in error
        with pytest.raises(LimitError):
            parser.feed(b"data: c\n\n")


def test_exactly_at_the_limits():
    limits = Limits(line=20, event=30)
    stream = b"data:" + b"x" * 15 + b"\ndata: " + b"y" * 13 + b"\n\n"
    events, _, error = run([stream], limits)
    assert (len(events), error) == (1, "")


@pytest.mark.parametrize(("line", "event"), [(0, 1), (2, 1), (-1, 5)])
def test_limits_out_of_order(line, event):
    with pytest.raises(ValueError):
        Limits(line=line, event=event)
