# SPDX-License-Identifier: Apache-2.0
"""How fast event streams are parsed, next to the parsers of other Python clients.

    pip install 'updaterd[bench]' && python benchmarks/sse.py

Every parser gets the same chunks in the same run, and must give the same number of
events; what stands is the best of up to 15 rounds. Peers that are not installed are
left out. Numbers are of one core and of this machine: compare within a run only.
"""

import argparse
import asyncio
import codecs
import importlib.metadata
import platform
import time

MIB = 2**20


def updaterd(chunks):
    from updaterd.core.sse import Parser

    parser = Parser()
    for chunk in chunks:
        yield from parser.feed(chunk)


def httpx_sse(chunks):
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    lines, decoder = SSELineDecoder(), SSEDecoder()
    for chunk in chunks:
        for line in lines.decode(text.decode(chunk)):
            event = decoder.decode(line)
            if event is not None:
                yield event


def httpx2(chunks):
    from httpx2._sse import _SSEParser

    text = codecs.getincrementaldecoder("utf-8")(errors="replace")
    parser = _SSEParser()
    for chunk in chunks:
        yield from parser.decode(text.decode(chunk))


def launchdarkly(chunks):
    from ld_eventsource.reader import _BufferedLineReader, _SSEReader

    yield from _SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments()


def sseclient(chunks):
    from sseclient import SSEClient

    yield from SSEClient(iter(chunks)).events()


def aiosonic(chunks):
    from aiosonic.sse_client import SSEConnection
    from aiosonic.sse_config import RequestConfig

    class Response:
        async def read_chunks(self):
            for chunk in chunks:
                yield chunk

    async def collect():
        config = RequestConfig.__new__(RequestConfig)
        config.headers, config.reconnect, config.keep_connection = None, False, False
        return [event async for event in SSEConnection(Response(), None, config)]

    yield from asyncio.run(collect())


PARSERS = {  # by distribution
    "updaterd": updaterd,
    "httpx-sse": httpx_sse,
    "httpx2": httpx2,
    "launchdarkly-eventsource": launchdarkly,
    "sseclient-py": sseclient,
    "aiosonic": aiosonic,
}


def small(number):
    return b"data: event %d\n\n" % number


def update(number):
    data = (
        b'{"schema":1,"product":"acme","channel":"stable","version":"1.2.%d"' % number
    )
    data += b',"seq":%d,"urgency":"normal","spread_s":600}' % number
    return b"id: 1.1763696000000-%d\nevent: update_available\ndata: %s\n\n" % (
        number,
        data,
    )


def crlf(number):
    return update(number).replace(b"\n", b"\r\n")


def multi_line(number):
    line = b"data: %068d\n" % number
    return line * (MIB // len(line)) + b"\n"


def one_line(number):
    return b"data: " + b"%064d" % number * (MIB // 64) + b"\n\n"


ROWS = [  # name, event, how many, what counts
    ("small events", small, 60_000, "events/s"),
    ("update events", update, 20_000, "events/s"),
    ("update events, CRLF", crlf, 20_000, "events/s"),
    ("1 MB of data lines", multi_line, 2, "MB/s"),
    ("1 MB in one line", one_line, 2, "MB/s"),
]
CHUNKS = (16 * 1024, 512)


def measure(parse, stream, size, expected, patience_s):
    """Return the best time for the stream; None when events are missing."""
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    best = float("inf")
    begun = time.perf_counter()
    for _ in range(15):
        start = time.process_time()  # others may use this machine too
        try:
            count = sum(1 for _ in parse(chunks))
        except Exception as error:  # noqa: BLE001 # a peer's failure is its result
            return None, type(error).__name__
        best = min(best, time.process_time() - start)
        if count != expected:
            return None, f"{count} of {expected}"
        if time.perf_counter() - begun > patience_s:
            break
    return best, ""


def installed():
    for name, parse in PARSERS.items():
        try:
            yield name, importlib.metadata.version(name), parse
        except importlib.metadata.PackageNotFoundError:
            print(f"not installed: {name}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--scale", type=float, default=1.0, help="of event counts")
    arguments.add_argument("--patience", type=float, default=1.5, metavar="S")
    arguments.add_argument("--row", default="", help="only rows with this in the name")
    options = arguments.parse_args()
    parsers = list(installed())
    print(f"CPython {platform.python_version()} on {platform.machine()}")
    print(", ".join(f"{name} {version}" for name, version, _ in parsers))
    lost = []
    for title, make, full, unit in ROWS:
        if options.row not in title:
            continue
        count = max(1, int(full * options.scale))
        stream = b"".join(map(make, range(count)))
        for size in CHUNKS:
            print(f"\n{title}, chunks of {size} B ({unit})")
            results = {}
            for name, _, parse in parsers:
                best, why = measure(parse, stream, size, count, options.patience)
                if best is None:
                    print(f"  {name:<26} wrong: {why}")
                    continue
                results[name] = (
                    count if unit == "events/s" else len(stream) / 1e6
                ) / best
                print(f"  {name:<26} {results[name]:>12,.0f}")
            if max(results, key=results.get) != "updaterd":
                lost.append(f"{title}, {size} B")
    print("\nfastest in every row" if not lost else f"\nnot the fastest in: {lost}")


if __name__ == "__main__":
    main()
