# SPDX-License-Identifier: Apache-2.0
"""Measure three replicas over one log: what an announcement costs, and when it comes.

    python benchmarks/feed_replicas.py [--log redis] [--streams 6000] [--events 50]

The log is Redis (with an append-only file, synced always) or NATS (JetStream; which
syncs always if it is 2.10 or newer). Replicas, log and one C reader for each replica,
all on loopback and on the same cores: latency is that of a crowded machine.
Announcements go to the replicas in turn. CPU is the replicas' together for each
delivered event, and the log's own for each announcement. Of few streams, the replicas'
CPU is mostly that of asking the log: it is told for each announcement, too.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from feed import Server, compile_c, read

REDIS = os.environ.get("REDIS_SERVER", "redis-server")
NATS = os.environ.get("NATS_SERVER", "nats-server")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start_redis(folder):
    port = free_port()
    words = [
        *(shutil.which(REDIS), "--port", str(port), "--bind", "127.0.0.1"),
        *("--dir", folder, "--save", "", "--appendonly", "yes"),
        *("--appendfsync", "always"),
    ]
    return start_log(words, port), f"redis://127.0.0.1:{port}/0"


def start_nats(folder):
    port = free_port()
    program = shutil.which(NATS)
    version = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True
    ).stdout
    minor = int(version.rpartition("v2.")[2].partition(".")[0])
    sync = ", sync_interval: always" if minor >= 10 else ""
    config = Path(folder) / "nats.conf"
    config.write_text(
        f'listen: 127.0.0.1:{port}\njetstream {{ store_dir: "{folder}"{sync} }}\n'
    )
    return start_log([program, "-c", config], port), f"nats://127.0.0.1:{port}"


LOGS = {"redis": start_redis, "nats": start_nats}


def start_log(words, port):
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    raise AssertionError("the log does not answer")


def cpu_s(process):
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9


def start_replicas(count, log_url, folder):
    python = [sys.executable, "-m", "updaterd"]
    state = folder / "state"
    token = subprocess.run(
        [*python, "token", "create", "--state", state, "--scope", "publish:*/*"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    address = folder / "address"
    command = [
        *(*python, "serve", "--state", state, "--port", "0", "--log", log_url),
        *("--address-file", address, "--max-per-address", "0", "--rate", "100000"),
    ]
    return [
        Server(f"replica-{n}", command, folder, token=token, address=address)
        for n in range(count)
    ]


def run(arguments, folder):
    store, log_url = LOGS[arguments.log](folder)
    replicas = []
    try:
        replicas = start_replicas(arguments.replicas, log_url, folder)
        share = arguments.streams // arguments.replicas
        readers = [read(server, share, arguments.events, folder) for server in replicas]
        publish = [server.publisher() for server in replicas]
        pause = max(0.05, arguments.streams * 25e-6)
        cpu, store_cpu = sum(server.cpu_s() for server in replicas), cpu_s(store)
        for number in range(1, arguments.events + 1):
            due = time.monotonic() + pause
            publish[number % len(publish)](number)
            time.sleep(max(0, due - time.monotonic()))
        results = []
        for reader in readers:
            reader.wait(60)
            results.append(json.loads(reader.communicate()[0]))
        cpu = sum(server.cpu_s() for server in replicas) - cpu
        store_cpu = cpu_s(store) - store_cpu
    finally:
        for server in replicas:
            server.stop()
        store.kill()
        store.wait()
    delivered = sum(r["delivered"] for r in results)
    wrong = sum(r["lost"] + r["doubled"] + r["disordered"] for r in results)
    print(
        f"{arguments.replicas} replicas, {share * arguments.replicas:,} streams, "
        f"{arguments.events} events: {delivered:,} deliveries\n"
        f"replicas: {cpu / delivered * 1e6:.1f} us CPU for each, "
        f"{cpu / arguments.events * 1e3:.2f} ms for an announcement\n"
        f"{arguments.log}: {store_cpu / arguments.events * 1e3:.2f} ms CPU for one\n"
        f"latency: p50 {max(r['p50_us'] for r in results) / 1000:.0f} ms, p99 "
        f"{max(r['p99_us'] for r in results) / 1000:.0f} ms (of the slowest replica)\n"
        f"lost, doubled, disordered: {wrong}"
    )
    return (
        1 if wrong or delivered != share * arguments.replicas * arguments.events else 0
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", choices=LOGS, default="redis")
    parser.add_argument("--streams", type=int, default=6000)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=3)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as temporary:
        compile_c("feed_readers", Path(temporary))
        return run(arguments, Path(temporary))


if __name__ == "__main__":
    sys.exit(main())
