# SPDX-License-Identifier: Apache-2.0
"""From `release push` to installed, on real clients: the clock that machines report.

    python benchmarks/latency.py                     1 client, then 20
    python benchmarks/latency.py --clients 100 --tree 1000000

Real daemons and workers on loopback, each with a configuration, a state and a tree of
its own, one server, and a tree that differs by a tenth. The first machine installs the
first release; the others are copies of its disk, as a fleet is made. Then a release is
pushed that each daemon installs, and after it the one that is measured, so that no
daemon is new. `total` is what the report server says of that release, from its own
clock: a histogram's percentiles, so they lie between two of its edges. The parts are
from the machines' reports themselves, seconds after the event came. CPU is that of all
daemons and their workers from the push until the last report was taken, from /proc, and
of the server beside it. All of them share this machine with each other and with the
server, which no fleet does.
The aims: with one client half of the machines in 0.6 s; with many 99 of 100 within 1.2
times (CPU of all / cores) + 0.5 s.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
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

PARTS = ("seen_s", "fetched_s", "staged_s", "activated_s", "ended_s")


def tree(folder, version, size):
    same = random.Random(1).randbytes(size * 9 // 10)  # as what is compressed already
    changed = random.Random(version).randbytes(size // 10)
    return make_tree(
        folder / version,
        {"bin/app": f"#!/bin/sh\necho {version}\n", "lib/same": same,
         "lib/changed": changed},
    )  # fmt: skip


def cpu_s(pids):
    """Return the CPU of processes and of what they waited for, seconds."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def workers_of(pid):
    """Return the processes that a daemon has started and not waited for."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_open(machine):
    """Tell whether a daemon's stream is open, by the file that it writes itself."""
    try:
        status = json.loads((machine.root / "run/status.json").read_text())
    except FileNotFoundError:
        return False
    return (status["feed"]["connection"] or {}).get("phase") == "open"


def reported(machine, version):
    """Return the newest report of a machine, if it is of that release and was taken."""
    with closing(open_for_reading(machine.root / "state/state.db")) as db:
        rows = [row for row in Outbox(db).all() if row.state == "sent"]
    document = json.loads(rows[-1].body) if rows else {}
    return document if document.get("version") == version else None


def machine_of(folder, site, number):
    return Machine(
        folder / f"m{number}",
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
    )


def copied(first, folder, site, number):
    """Return a further machine, a copy of the first one's disk."""
    machine = machine_of(folder, site, number)
    for part in ("state", "cache", "opt"):
        shutil.rmtree(machine.root / part, ignore_errors=True)
        shutil.copytree(first.root / part, machine.root / part, symlinks=True)
    (machine.root / "state/machine-id").unlink(missing_ok=True)
    return machine


def measure(count, size, folder):
    site = Site(folder / "site")
    site.serve_options = (
        *("--reports", "open", "--reports-rate", "100000"),
        *("--max-per-address", "0", "--rate", "10000"),
    )
    site.start()
    try:
        return _measure(site, count, size, folder)
    finally:
        site.hard_stop()


def pushed(site, folder, size, version, machines):
    """Push a release; wait until every machine has told of it, and rests again."""
    site.push(tree(folder / "trees", version, size), version)
    for machine in machines:
        eventually(lambda m=machine: reported(m, version), within_s=1800)
    for machine in machines:
        eventually(lambda m=machine: not workers_of(m.daemon.pid), within_s=600)


def _measure(site, count, size, folder):
    site.push(tree(folder / "trees", "1.0.0", size), "1.0.0")
    first = machine_of(folder, site, 0)
    first("update", "acme")
    machines = [first, *(copied(first, folder, site, n) for n in range(1, count))]
    for machine in machines:
        with machine.config.open("a") as config:
            config.write("[reports]\nsend = true\n")
    try:
        for at in range(0, count, 10):  # a machine boots when others are up
            for machine in machines[at : at + 10]:
                machine.start()
            for machine in machines[at : at + 10]:
                eventually(lambda m=machine: is_open(m), within_s=600)
        pushed(site, folder, size, "2.0.0", machines)
        pids = [machine.daemon.pid for machine in machines]
        before, server = cpu_s(pids), cpu_s([site.server.pid])
        pushed(site, folder, size, "3.0.0", machines)
        spent = cpu_s(pids) - before
        server = cpu_s([site.server.pid]) - server
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
    assert newest["version"] == "3.0.0", newest
    assert newest["machines"] == {"installed": count}, newest
    exact = [reported(machine, "3.0.0") for machine in machines]
    return newest, exact, spent, server


def percentile(seconds, share):
    return seconds[round(share * (len(seconds) - 1))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--tree", type=int, default=1_000_000, help="bytes")
    arguments = parser.parse_args()
    for count in arguments.clients or (1, 20):
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o755)
            newest, exact, spent, server = measure(count, arguments.tree, Path(name))
        print(f"{count} clients, a tree of {arguments.tree} bytes, delta fetched "
              f"{newest['bytes_fetched'] // count} of {newest['bytes_full'] // count}; "
              f"CPU {spent / count:.2f} s a client, "
              f"and {server / count:.3f} s of the server for each")  # fmt: skip
        total = newest["latency"]["total_s"]
        print(f"  total, by the server's buckets: p50 {total['p50_s']} s, "
              f"p99 {total['p99_s']} s, {total['machines']} machines")  # fmt: skip
        for part in PARTS:
            seconds = sorted(report[part] for report in exact if part in report)
            half, most = (percentile(seconds, share) for share in (0.5, 0.99))
            print(f"  {part:<12} p50 {half:>8} s   p99 {most:>8} s")
        fair = 1.2 * (spent + server) / len(os.sched_getaffinity(0)) + 0.5
        aim = f"p50 {half} s of 0.6" if count == 1 else f"p99 {most} s of {fair:.1f}"
        print(f"  the aim: {aim}", flush=True)


if __name__ == "__main__":
    main()
