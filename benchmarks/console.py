# SPDX-License-Identifier: Apache-2.0
"""A big store of reports, and what each page of the console and each answer costs.

    python benchmarks/console.py                              100,000 machines, SQLite
    python benchmarks/console.py --store postgres --machines 1000000

100 products with 500 releases each, five tags, three platforms. The rows are written
as the server would have counted them, straight into its tables; a real server then
answers, with what each channel offers beside it. CPU is its own, from /proc
(PostgreSQL's beside it), the mean of --rounds requests after one that is not counted.
It ends with an error where the server's own is above 50 ms. PostgreSQL makes the two
largest tables by itself.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from fakes.postgres import PostgresProcess  # noqa: E402 # after the path is set
from fakes.serving import FeedProcess  # noqa: E402 # after the path is set
from reports import cpu_s, family  # noqa: E402 # the benchmark beside this one

from updaterd.core import layout  # noqa: E402 # as above
from updaterd.core.channel import ChannelPointer, Offer, Rollout  # noqa: E402 # as above
from updaterd.core.plan import RUNNING, Limits, Plan, Step  # noqa: E402 # as above
from updaterd.server.reports.contract import CLOCK, Keeping  # noqa: E402 # as above
from updaterd.server.reports.registry import open_store  # noqa: E402 # as above
from updaterd.server.reports.tables import VERDICT_COLUMNS  # noqa: E402 # as above

PRODUCTS, RELEASES = 100, 500
PLATFORMS = ("linux-x86_64", "linux-aarch64", "linux-armv7l")
TAGS = ("staff", "berlin", "paris", "kiosk", "lab")
HOUR_MS = 3_600_000
MANNERS = (
    ("installed", "upgrade", "event", "delta"),
    ("installed", "upgrade", "poll", "full"),
    ("rolled_back", "unhealthy", "event", "delta"),
    ("failed", "disk_full", "event", ""),
)
MOST_SHOWN_MS = 50.0


def tables(machines, now_ms):
    """Yield each table with its columns and rows."""
    draw = random.Random(5)
    places = [
        (product, seq, platform)
        for product in range(PRODUCTS)
        for seq in range(1, RELEASES + 1)
        for platform in range(len(PLATFORMS))
    ]
    number = {place: at for at, place in enumerate(places, 1)}
    yield (
        "place",
        ("id", "product", "channel", "platform", "version", "seq"),
        (
            (
                at,
                f"product-{p:03d}",
                "stable",
                PLATFORMS[f],
                f"{s // 100}.{s % 100}.0",
                s,
            )
            for (p, s, f), at in number.items()
        ),
    )
    yield (
        "manner",
        ("id", "outcome", "code", "started", "path"),
        ((at, *manner) for at, manner in enumerate(MANNERS, 1)),
    )
    yield (
        "origin",
        ("id", "tags", "updater"),
        ((at, tag, "0.2.0") for at, tag in enumerate(TAGS, 1)),
    )
    yield "machine", ("product", "machine", "place", "origin", "at_ms"), (
        (f"product-{n % PRODUCTS:03d}", ident(n),
         number[n % PRODUCTS, RELEASES - n % 7, n % 3], 1 + n % 5, now_ms - n % 10**8)
        for n in range(machines)
    )  # fmt: skip
    yield (
        "population",
        ("product", "channel", "n"),
        ((f"product-{p:03d}", "stable", machines // PRODUCTS) for p in range(PRODUCTS)),
    )
    # each machine: the last four releases, one in twenty failed
    yield "verdict", VERDICT_COLUMNS, (
        (ident(n), number[n % PRODUCTS, RELEASES - back, n % 3], *verdict(n + back),
         *(500 + 37 * part for part in range(len(CLOCK))))
        for n in range(machines)
        for back in range(4)
    )  # fmt: skip
    members = max(1, machines // PRODUCTS // len(PLATFORMS))
    for table, columns, rows in (
        ("adoption", ("place", "origin", "n"),
         lambda at, s: ((at, origin, 1 + members // 50)
                        for origin in range(1, 6 if is_new(s) else 2))),
        ("outcome", ("place", "manner", "n"),
         lambda at, s: ((at, manner, members // manner)
                        for manner in range(1, 5 if is_new(s) else 2))),
        ("latency", ("place", "started", "part", "bucket", "n"),
         lambda at, s: ((at, "event", part, bucket, 1 + members // 10)
                        for part in range(len(CLOCK) if is_new(s) else 1)
                        for bucket in range(2, 10 if is_new(s) else 3))),
    ):  # fmt: skip
        yield (
            table,
            columns,
            (row for (_, s, _), at in number.items() for row in rows(at, s)),
        )
    # a rollout goes on: for a week in a tenth of the products, for a day in the others
    names = ("place", "hour", "manner", "n", "bytes_fetched", "bytes_full", "lost")
    day_ms = 86_400_000 // HOUR_MS * HOUR_MS
    yield "tally", names, (  # what has no hour any more would be trimmed
        (at, now_ms // HOUR_MS * HOUR_MS - 30 * day_ms, 1, 1, 10**6, 10**8, 0)
        for (_, s, _), at in number.items() if s < RELEASES - 4
    )  # fmt: skip
    yield "tally", names, (
        (number[p, s, f], now_ms // HOUR_MS * HOUR_MS - hour * HOUR_MS, manner,
         draw.randrange(1, 50), 10**6, 10**8, 0)
        for p in range(PRODUCTS)
        for s in range(RELEASES - 4, RELEASES + 1)
        for f in range(3)
        for hour in range(168 if p % 10 == 2 else 24)
        for manner in range(1, 5)
    )  # fmt: skip
    yield (
        "total",
        ("place", "manner", *names[3:], "first_ms", "last_ms"),
        (
            (at, manner, members, 10**8, 10**10, 0, now_ms - 10**9, now_ms)
            for at in number.values()
            for manner in range(1, 5)
        ),
    )


def is_new(seq):
    """Tell whether a release is one of those that many machines still run."""
    return seq > RELEASES - 20


def ident(number):
    return number.to_bytes(16, "big")


def verdict(number):
    """Return manner, time and whether it failed."""
    manner = 3 + number % 2 if number % 20 == 0 else 1 + number % 2
    return manner, 1_790_000_000_000 + number, int(manner > 2)


def in_database(machines, now_ms):
    """Return the two large tables as PostgreSQL makes them itself: the same rows."""
    ident = "decode(lpad(to_hex(n), 32, '0'), 'hex')"
    place = "(n % {p}) * {s} + ({r} - {back} - 1) * {f} + n % {f} + 1".format(
        p=PRODUCTS, s=RELEASES * len(PLATFORMS), r=RELEASES, f=len(PLATFORMS),
        back="{}",
    )  # fmt: skip
    clock = ", ".join(str(500 + 37 * part) for part in range(len(CLOCK)))
    bad, all_of_them = "(n + back) % 20 = 0", f"generate_series(0, {machines - 1}) AS n"
    return {
        "machine": "SELECT 'product-' || lpad((n % 100)::text, 3, '0'), "
        f"{ident}, {place.format('(n % 7)')}, 1 + n % 5, {now_ms} - n % 100000000 "
        f"FROM {all_of_them}",
        "verdict": f"SELECT {ident}, {place.format('back')}, "
        f"CASE WHEN {bad} THEN 3 ELSE 1 END + (n + back) % 2, "
        f"1790000000000 + n + back, ({bad})::int, {clock} "
        f"FROM {all_of_them}, generate_series(0, 3) AS back",
    }


def fill(store, machines, now_ms):
    by_itself = in_database(machines, now_ms)
    for table, columns, rows in tables(machines, now_ms):
        if hasattr(store, "_db"):
            holes = ", ".join("?" * len(columns))
            store._db.execute("PRAGMA synchronous = OFF")
            store._db.execute("BEGIN")
            store._db.executemany(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({holes})", rows
            )
            store._db.execute("COMMIT")
            continue
        connection = store._connection()
        if table in by_itself:
            names = ", ".join(columns)
            query = f"INSERT INTO {table} ({names}) {by_itself[table]}"
            connection.execute(query.encode())
            continue
        into = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with connection.cursor().copy(into.encode()) as copy:
            buffer = io.StringIO()
            for row in rows:
                buffer.write("\t".join(map(copied, row)) + "\n")
                if buffer.tell() > 1 << 20:
                    copy.write(buffer.getvalue())
                    buffer = io.StringIO()
            copy.write(buffer.getvalue())
    if not hasattr(store, "_db"):  # autovacuum does it; SQLite has nobody who does
        store._connection().execute("ANALYZE")


def copied(value):
    return f"\\\\x{value.hex()}" if isinstance(value, bytes) else str(value)


def measure(server, database, path, headers, rounds):
    def ask():
        request = urllib.request.Request(f"{server.url}{path}", headers=headers)
        with urllib.request.urlopen(request) as answer:
            return len(answer.read())

    size = ask()
    own, of_database = (
        [server.process.pid],
        family(database.process.pid) if database else [],
    )
    before, before_db, began = cpu_s(own), cpu_s(of_database), time.perf_counter()
    for _ in range(rounds):
        ask()
    took = time.perf_counter() - began
    cost = 1000 * (cpu_s(own) - before) / rounds
    cost_db = 1000 * (cpu_s(of_database) - before_db) / rounds
    print(
        f"{path:<70.70} {size / 1000:>7.1f} {cost:>7.1f} {cost_db:>7.1f}"
        f" {1000 * took / rounds:>8.1f}",
        flush=True,
    )
    return cost


def write_repository(public, now_s):
    """Write what each channel offers, as the console reads it: a plan that moves."""
    metadata = public / "metadata"
    metadata.mkdir(parents=True)
    plan = Plan(
        version="4.99.0",
        state=RUNNING,
        steps=(
            Step(permille=10, dwell_s=14400, min_reports=100),
            Step(permille=1000, dwell_s=86400, min_reports=500),
        ),
        halt=Limits(),
        step=0,
        since=now_s,
    )
    names = [f"product-{number:03d}" for number in range(PRODUCTS)]
    documents = {
        "timestamp.json": {"meta": {layout.SNAPSHOT: {"version": 1}}},
        layout.role_file("snapshot", 1): {
            "meta": {
                layout.role_file(layout.channel_role(name, "stable")): {"version": 1}
                for name in names
            }
        },
    }
    for name in names:
        pointer = ChannelPointer(
            product=name, channel="stable", paused=False, floor_seq=0, plan=plan,
            releases=(
                Offer(version="4.99.0", seq=499, rollout=Rollout(permille=10)),
                Offer(version="4.98.0", seq=498, rollout=Rollout()),
            ),
        )  # fmt: skip
        role = layout.role_file(layout.channel_role(name, "stable"), 1)
        path = layout.channel(name, "stable")
        documents[role] = {"targets": {path: {"custom": pointer.as_custom()}}}
    for name, signed in documents.items():
        text = json.dumps({"signed": signed, "signatures": [{"keyid": "0" * 64}]})
        (metadata / name).write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--machines", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    now_ms = int(time.time() * 1000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        database, url = None, ""
        if arguments.store == "postgres":
            (folder / "pg").mkdir()
            database = PostgresProcess(folder / "pg").init().start()
            url = database.url
        state = folder / "state"
        state.mkdir(mode=0o700)
        began = time.perf_counter()
        store = open_store(url, state=state, keeping=Keeping())
        fill(store, arguments.machines, now_ms)
        store.close()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(
            f"{arguments.machines} machines in {arguments.store}: "
            f"{size / 1e6:.0f} MB, made in {time.perf_counter() - began:.0f} s\n"
            f"{'page or answer':<70} {'KB':>7} {'CPU ms':>7} {'db ms':>7}"
            f" {'took ms':>8}"
        )
        write_repository(folder / "public", now_ms // 1000)
        more = ["--repo", str(folder / "public")]
        more += ["--reports-store", url] if url else []
        server = FeedProcess(state, "--reports", "open", "--console", *more).start()
        try:
            most = ask_all(server, database, arguments.rounds)
        finally:
            server.stop()
            if database is not None:
                database.stop()
    print(f"the dearest: {most:.1f} ms of the server's CPU")
    if most > MOST_SHOWN_MS:
        sys.exit(f"more than {MOST_SHOWN_MS:.0f} ms")


def ask_all(server, database, rounds):
    token = server.token("fleet:read")

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    fields = urlencode({"token": token}).encode()
    try:
        urllib.request.build_opener(Stay).open(f"{server.url}/console/login", fields)
    except urllib.error.HTTPError as answer:
        cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
    bearer = {"Authorization": f"Bearer {token}"}
    channel = "/products/product-042/channels/stable"
    return max(
        measure(server, database, path, headers, rounds)
        for path, headers in (
            ("/console/", cookie),
            (f"/console{channel}", cookie),
            (f"/console{channel}?before=250", cookie),
            (f"/console{channel}/releases/5.0.0", cookie),
            (f"/console/machines/{ident(42).hex()}", cookie),
            ("/v1/fleet", bearer),
            (f"/v1/fleet{channel}", bearer),
            (f"/v1/fleet{channel}?limit=100", bearer),
            (f"/v1/fleet{channel}/releases/5.0.0", bearer),
        )
    )


if __name__ == "__main__":
    main()
