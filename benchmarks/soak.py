# SPDX-License-Identifier: Apache-2.0
"""Hold many streams for hours: is memory flat, are descriptors, and is nothing lost?

    python benchmarks/soak.py [--minutes 30] [--streams 20000] [--record FILE]

A real `serve --workers 2` and two C programs that read (`soak_readers.c`). Small events
go to all, large ones to the slow readers, which sleep for up to two minutes at a time
and are dropped for it now and then. Twenty streams a second hang up and come back with
their cursors; the server ends others as their lifetime is up. At a quarter of the time
SIGHUP replaces the workers, with 10 s for their streams to move. What a worker keeps of
the newest events is filled at its beginning: it has a limit, and is no leak.

It is to run beside other work, in pieces: each appends to the record, and the table and
the verdict at the end are of all pieces in it (`--minutes 0`: of those, and no more).

Memory is private anonymous memory of the owner and its workers; the kernel's is what
the sockets of the server's end hold (`ss -m`). Both are fitted with one slope for all
stretches between two beginnings of the workers, the first minutes of each cut off, and
each stretch with a level of its own. Descriptors of the workers, less the streams that
the kernel counts, are a constant, give or take who comes and goes as they are counted.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median

from feed import compile_c, metadata

CONNECTS_PER_S = 500  # of one of the readers
LARGE = 40_000  # bytes, about
FLAT_PER_HOUR = 0.02  # of what there is
MOVING_S = 20  # after SIGHUP: the new workers have the streams
STRAY = 40  # descriptors of connections that come and go
WARM = {"product": "warm", "channel": "warm"}
SMALL = {"product": "acme", "channel": "stable"}
BIG = {"product": "acme", "channel": "large"}


def token_of(state):
    command = [sys.executable, "-m", "updaterd", "token", "create", "--state", state]
    return subprocess.run(
        [*command, "--scope", "publish:*/*"], check=True, capture_output=True, text=True
    ).stdout.strip()


class Feed:
    """A server with its workers."""

    def __init__(self, folder, arguments):
        self.state = folder / "state"
        self.token = token_of(self.state)
        address = folder / "address"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "updaterd", "serve", "--state", self.state),
                *("--port", "0", "--address-file", address, "--grace", "10"),
                *("--workers", str(arguments.workers), "--max-per-address", "0"),
                *("--keep-events", "2000", "--lifetime", str(arguments.lifetime)),
            ],
            stdin=subprocess.DEVNULL,
            stderr=(folder / "log").open("ab"),
        )
        while not address.exists():
            assert self.process.poll() is None, (folder / "log").read_text()
            time.sleep(0.02)
        self.port = int(address.read_text().rsplit(":", 1)[1])
        self.prefix = os.urandom(4).hex()
        self.sent = self.warmed = 0
        self.refused = 0

    def publish(self, topic, number, size=0):
        """Announce, by a connection of its own: the worker may be gone tomorrow.

        Raises:
            AssertionError: it was refused for 20 s.
        """
        self.sent += 1
        pushed = {"tuf": metadata(number, size)} if size else {}
        message = {"schema": 1, **topic, "version": str(number), "seq": number,
                   "urgency": "normal", "spread_s": 0, **pushed}  # fmt: skip
        command = [
            *("curl", "-sS", "-w", "%{http_code}", "--data", "@-"),
            *("-H", "Content-Type: application/json", "--max-time", "20"),
            *("-H", f"Authorization: Bearer {self.token}"),
            *("-H", f"Idempotency-Key: {self.prefix}-{self.sent}"),
            f"http://127.0.0.1:{self.port}/v1/events",
        ]
        text = json.dumps(message, separators=(",", ":"))
        for _ in range(20):
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False
            )
            if done.stdout[-3:] in {"200", "201"}:
                return
            self.refused += not done.stdout.endswith("429")
            time.sleep(1)
        raise AssertionError((done.stdout, done.stderr))

    def warm(self, most):
        """Fill each worker's memory for events (`ring_bytes`), which is empty at first.

        Else what is kept of the newest events looks like a leak until it is full.
        """
        for _ in range(most):
            self.warmed += 1
            self.publish(WARM, self.warmed, LARGE)

    def workers(self):
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [*map(int, children.split())]

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def part_of(pid):
    """Return what a process has: bytes of memory, descriptors, threads, CPU."""
    proc = Path(f"/proc/{pid}")
    fields = dict(
        line.split(":", 1)
        for line in (proc / "smaps_rollup").read_text().splitlines()[1:]
    )
    kib = {name: int(text.split()[0]) for name, text in fields.items()}
    tasks = list((proc / "task").iterdir())
    return {
        "pid": pid,
        "anonymous": kib["Anonymous"] * 1024,
        "pss": kib["Pss"] * 1024,
        "rss": kib["Rss"] * 1024,
        "files": len(os.listdir(proc / "fd")),
        "threads": len(tasks),
        "cpu_s": sum(int((t / "schedstat").read_text().split()[0]) for t in tasks)
        / 1e9,
    }


def sockets_of(port):
    """Return connections of the server's end, and the bytes that they hold."""
    text = subprocess.run(
        ["ss", "-tmnH", "state", "established", f"sport = :{port}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    held = re.findall(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+)", text)
    return len(held), sum(int(r) + int(f) + int(w) for r, _, f, w in held)


class Readers:
    """The programs that read; `ask` tells what they counted, together."""

    def __init__(self, program, port, arguments):
        self.all = []
        streams, slow = arguments.streams // 2, arguments.slow // 2
        for n in range(2):
            numbers = (port, streams, slow, CONNECTS_PER_S, arguments.breaks // 2)
            self.all.append(
                subprocess.Popen(
                    [
                        program,
                        *map(str, numbers),
                        f"127.0.3.{n + 1}",
                        "?product=acme&channel=stable",
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )

    def ask(self, word="how"):
        for process in self.all:
            print(word, file=process.stdin, flush=True)
        answers = [json.loads(process.stdout.readline()) for process in self.all]
        return {key: sum(answer[key] for answer in answers) for key in answers[0]}

    def cpu_s(self):
        return sum(part_of(process.pid)["cpu_s"] for process in self.all)

    def stop(self):
        for process in self.all:
            with contextlib.suppress(OSError):
                process.stdin.close()
            process.wait(20)


def sample(stretch, began, feed, readers):
    """Return one row of the record."""
    parts = [part_of(pid) for pid in (feed.process.pid, *feed.workers())]
    count, held = sockets_of(feed.port)
    counts = readers.ask()
    return {
        "stretch": stretch,
        "at_s": round(time.monotonic() - began, 1),
        "sockets": count,
        "kernel": held,
        "machine_tcp_pages": int(
            re.search(
                r"^TCP: .* mem (\d+)",
                Path("/proc/net/sockstat").read_text(),
                re.MULTILINE,
            )[1]
        ),
        "parts": parts,
        "readers_cpu_s": round(readers.cpu_s(), 2),
        **counts,
    }


def timetable(arguments):
    """Yield, as the time of each comes, what is to be done in a piece."""
    now = time.monotonic()
    due = dict.fromkeys(("small", "large", "sample"), now)
    due["replace"] = now + arguments.minutes * 15
    pauses = {"small": arguments.pause, "large": 5.0, "sample": 15.0}
    ends = now + arguments.minutes * 60
    while (now := time.monotonic()) < ends:
        for name in [name for name, at in due.items() if at <= now]:
            due[name] = max(due[name] + pauses.get(name, ends), now)
            yield name
        time.sleep(max(0.0, min(*due.values(), ends) - time.monotonic()))


def run_piece(arguments, feed, readers, note):
    """Publish, and sample, for a piece of the time; `note` takes each row."""
    began = time.monotonic()
    sent = {"small": 0, "large": 0}
    stretch, due_warm = 1, float("inf")
    for task in timetable(arguments):
        if time.monotonic() >= due_warm:
            due_warm = float("inf")
            feed.warm(arguments.warm)
        if task == "replace":
            stretch = 2
            feed.process.send_signal(signal.SIGHUP)
            due_warm = time.monotonic() + MOVING_S
        elif task == "sample":
            row = sample(stretch, began, feed, readers)
            note(row | sent | {"unserved": feed.refused})
        else:
            sent[task] += 1
            topic, size = (SMALL, 0) if task == "small" else (BIG, LARGE)
            feed.publish(topic, sent[task], size)
    counts = readers.ask(f"end {sent['small']} {sent['large']}")
    note({"end": True, **sent, "unserved": feed.refused, **counts})


def add_piece(arguments, folder, record):
    """Run a piece and append its rows to the record."""
    piece = 1 + max((row["piece"] for row in record), default=0)
    feed = Feed(folder, arguments)
    readers = None

    def note(row):
        record.append({"piece": piece, **row})
        with arguments.record.open("a", encoding="utf-8") as rows:
            print(json.dumps(record[-1]), file=rows)

    try:
        feed.warm(arguments.warm)
        readers = Readers(compile_c("soak_readers", folder), feed.port, arguments)
        while readers.ask()["opened"] < arguments.streams:
            time.sleep(1)
        run_piece(arguments, feed, readers, note)
    finally:
        if readers is not None:
            readers.stop()
        feed.stop()


def slope(stretches):
    """Return the bytes an hour of several lines that have one slope and own levels."""
    above = below = 0.0
    for points in stretches:
        x, y = fmean(p[0] for p in points), fmean(p[1] for p in points)
        above += sum((a - x) * (b - y) for a, b in points)
        below += sum((a - x) ** 2 for a, _ in points)
    return above / below * 3600 if below else 0.0


def settled(rows, cut_s):
    """Return the rows of each stretch without its first minutes."""
    stretches = {}
    for row in rows:
        stretches.setdefault((row["piece"], row["stretch"]), []).append(row)
    cut = [
        [row for row in those if row["at_s"] >= those[0]["at_s"] + cut_s]
        for those in stretches.values()
    ]
    return [those for those in cut if len(those) > 3]


def anonymous(row):
    return sum(part["anonymous"] for part in row["parts"])


def strays(row):
    """Return descriptors of the workers that are no stream."""
    return sum(part["files"] for part in row["parts"][1:]) - row["sockets"]


def judge(record, cut_s):
    """Print the table and the verdict; return whether all of it holds."""
    rows = [row for row in record if "parts" in row]
    print("piece min  streams  user MiB  owner  workers' pss  kernel MiB  files - "
          "streams  threads  taken  refused")  # fmt: skip
    last = None
    for row in rows:
        at = (row["piece"], int(row["at_s"] // 300))
        if at != last:
            pss = ",".join(f"{p['pss'] / 2**20:.0f}" for p in row["parts"][1:])
            print(
                f"{row['piece']:>5} {row['at_s'] / 60:>3.0f} {row['open']:>8,}"
                f" {anonymous(row) / 2**20:>9.1f}"
                f" {row['parts'][0]['anonymous'] / 2**20:>6.1f} {pss:>13}"
                f" {row['kernel'] / 2**20:>11.1f} {strays(row):>16}"
                f" {sum(p['threads'] for p in row['parts']):>8}"
                f" {row['taken']:>6,} {row['refused']:>8}"
            )
        last = at
    calm = settled(rows, cut_s)
    if not calm:
        print("too short for a verdict")
        return False
    good = True
    for name, of in (("user", anonymous), ("kernel", lambda row: row["kernel"])):
        mean = fmean(of(row) for those in calm for row in those)
        hourly = slope([[(row["at_s"], of(row)) for row in those] for those in calm])
        flat = hourly <= FLAT_PER_HOUR * mean
        good = good and flat
        print(
            f"{name} memory: {mean / 2**20:.1f} MiB, {hourly / 2**20:+.2f} MiB an hour "
            f"({hourly / mean:+.1%}): {'flat' if flat else 'NOT FLAT'}"
        )
    over = [strays(row) for those in calm for row in those]
    middle = median(over)
    constant = max(abs(n - middle) for n in over) <= STRAY
    print(f"descriptors: streams + {middle:.0f}, from {min(over)} to {max(over)}: "
          f"{'constant' if constant else 'NOT CONSTANT'}")  # fmt: skip
    ends = [row for row in record if row.get("end")]
    keys = ("taken", "lost", "doubled", "disordered", "resyncs", "refused", "breaks",
            "ends", "unserved")  # fmt: skip
    sums = {key: sum(row[key] for row in ends) for key in keys}
    print(f"{len(ends)} pieces to their ends: "
          + ", ".join(f"{key} {n:,}" for key, n in sums.items()))  # fmt: skip
    hours = sum(those[-1]["at_s"] - those[0]["at_s"] for those in calm) / 3600
    cores = []
    for those in calm:
        spent = [sum(p["cpu_s"] for p in row["parts"]) for row in (those[0], those[-1])]
        cores.append((spent[1] - spent[0]) / (those[-1]["at_s"] - those[0]["at_s"]))
    print(f"{hours:.2f} h in {len(calm)} stretches; the server took "
          f"{fmean(cores):.1%} of a core")  # fmt: skip
    whole = not any(sums[key] for key in ("lost", "doubled", "disordered", "resyncs"))
    return good and constant and whole and bool(ends)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--slow", type=int, default=200, help="of the streams")
    parser.add_argument("--breaks", type=int, default=20, help="a second")
    parser.add_argument("--pause", type=float, default=10, help="seconds, small events")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lifetime", type=float, default=1800, help="seconds")
    parser.add_argument("--warm", type=int, default=450, help="large events, first")
    parser.add_argument("--cut", type=float, default=4, help="minutes of a stretch")
    parser.add_argument("--record", type=Path, default=Path("soak.jsonl"))
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    record = []
    if arguments.record.exists():
        text = arguments.record.read_text(encoding="utf-8")
        record = [json.loads(line) for line in text.splitlines()]
    if arguments.minutes:
        with tempfile.TemporaryDirectory() as folder:
            add_piece(arguments, Path(folder), record)
    return 0 if judge(record, arguments.cut * 60) else 1


if __name__ == "__main__":
    sys.exit(main())
