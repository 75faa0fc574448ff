# SPDX-License-Identifier: Apache-2.0
"""From `release push` to installed, on real clients: the clock that machines report.

    python benchmarks/latency.py                     1 client, then 20
    python benchmarks/latency.py --clients 100 --tree 1000000

Real daemons and workers on loopback, each with a configuration, a state and a tree of
its own, one server, and a tree that differs by a tenth. What is printed is what the
report server says of the release, from its own clock: a histogram's percentiles, so
they lie between two of its edges; `exact` is from the machines' reports themselves.
CPU is that of all processes of the clients, divided by the clients. All of them share
this machine with each other and with the server, which no fleet does.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fakes.machine import Machine, cli  # noqa: E402 # after the path is set
from fakes.site import Site  # noqa: E402 # after the path is set
from fakes.trees import make_tree  # noqa: E402 # after the path is set
from fakes.waiting import eventually  # noqa: E402 # after the path is set

from updaterd.store.outbox import Outbox  # noqa: E402 # after the path is set
from updaterd.store.schema import open_for_reading  # noqa: E402 # after the path is set

PARTS = ("total_s", "seen_s", "fetched_s", "staged_s", "activated_s", "ended_s")


def tree(folder, version, size):
    same = bytes(range(256)) * (size * 9 // 10 // 256)
    changed = (version.encode() * size)[: size // 10]
    return make_tree(
        folder / version,
        {"bin/app": f"#!/bin/sh\necho {version}\n", "lib/same": same,
         "lib/changed": changed},
    )  # fmt: skip


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_installed(machine, version):
    path = machine.app / "current"
    return path.is_symlink() and path.readlink().name == version


def reported(machine):
    """Return the newest report of a machine that was taken; None before."""
    with closing(open_for_reading(machine.root / "state/state.db")) as db:
        rows = [row for row in Outbox(db).all() if row.state == "sent"]
    document = json.loads(rows[-1].body) if rows else {}
    return document if document.get("version") == "2.0.0" else None


def measure(count, size, folder):
    site = Site(folder / "site")
    site.serve_options = ("--reports", "open", "--reports-rate", "100000")
    site.start()
    try:
        return _measure(site, count, size, folder)
    finally:
        site.hard_stop()


def _measure(site, count, size, folder):
    site.push(tree(folder / "trees", "1.0.0", size), "1.0.0")
    machines = [
        Machine(
            folder / f"m{number}",
            feed=site.feed_url,
            repository=f"{site.address}/repo",
            bootstrap=site.bootstrap,
            extra="[reports]\nsend = true\n",
        )
        for number in range(count)
    ]
    for machine in machines:
        machine("update", "acme")
    before = cpu_s()
    try:
        for machine in machines:
            machine.start()
        for machine in machines:
            eventually(
                lambda m=machine: (
                    (m.status()["feed"]["connection"] or {}).get("phase") == "open"
                ),
                within_s=600,
            )
        time.sleep(3.0)  # the looks at their start are over
        site.push(tree(folder / "trees", "2.0.0", size), "2.0.0")
        for machine in machines:
            eventually(lambda m=machine: reported(m), within_s=600)
    finally:
        for machine in machines:
            machine.stop()
    token = folder / "token"
    scope = ("token", "create", "--state", site.state, "--scope", "fleet:read")
    token.write_text(cli(*scope).stdout)
    done = cli(
        *("release", "status", "--fleet", "--json", "--repo", site.workspace),
        *("--feed", site.feed_url, "--token-file", token),
    )
    (channel,) = json.loads(done.stdout.splitlines()[0])["channels"]
    newest = channel["releases"][0]
    exact = sorted(reported(machine)["ended_s"] for machine in machines)
    return newest, exact, cpu_s() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--tree", type=int, default=1_000_000, help="bytes")
    arguments = parser.parse_args()
    for count in arguments.clients or (1, 20):
        with tempfile.TemporaryDirectory() as name:
            newest, exact, spent = measure(count, arguments.tree, Path(name))
        print(f"{count} clients, a tree of {arguments.tree} bytes, delta fetched "
              f"{newest['bytes_fetched'] // count} of {newest['bytes_full'] // count}; "
              f"CPU of all processes {spent / count:.2f} s a client")  # fmt: skip
        for part in PARTS:
            if (row := newest["latency"].get(part)) is not None:
                print(f"  {part:<12} p50 {row['p50_s']:>8} s   p99 {row['p99_s']:>8} s"
                      f"   {row['machines']} machines")  # fmt: skip
        half, most = exact[len(exact) // 2], exact[int(0.99 * (len(exact) - 1))]
        print(f"  ended, exact p50 {half:>8} s   p99 {most:>8} s", flush=True)


if __name__ == "__main__":
    main()
