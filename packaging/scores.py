# SPDX-License-Identifier: Apache-2.0
"""Print what docs/ quote: exposure of the units, package sizes, memory, start.

    python3 packaging/build.py --rpm && python3 packaging/scores.py [DIR_WITH_PACKAGES]

Memory and start are those of the daemon in the package (default: dist), unpacked,
compiled and run with the system's Python as its unit runs it, subscribed to a feed
that then says nothing. The least of three runs: others only add to it. RSS counts the
pages of shared libraries in full, PSS divides them among those who use them; its own
is what nothing shares. Over TLS, OpenSSL has more of itself in use, and a session.
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PYTHON = "/usr/bin/python3"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    b'id: 1\nevent: hello\ndata: {"heartbeat_s": 15}\n\n'
)
CONFIG = """
[feed]
url = "{url}/v1/events"
[trust]
root = "{folder}/root.json"
repository = "{url}/repo"
[products.acme]
root = "{folder}/acme"
"""
CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
    "-subj /CN=feed -addext subjectAltName=IP:127.0.0.1"
)


def exposures():
    """Return each service's score, as systemd-analyze gives it."""
    for unit in sorted((REPO / "systemd").glob("*.service")):
        done = subprocess.run(
            [
                *("systemd-analyze", "security", "--offline=true", "--no-pager"),
                str(unit),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        last = done.stdout.splitlines()[-1]
        yield unit.name, re.search(r": ([\d.]+) \w+", last)[1]


class Feed(threading.Thread):
    """Takes one subscription and says nothing more; turns everything else away."""

    def __init__(self, tls):
        super().__init__(daemon=True)
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        self.subscribed = threading.Event()
        self.peers = []

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.tls:
                    peer = self.tls.wrap_socket(peer, server_side=True)
            except OSError:  # the worker's: it does not know the certificate
                continue
            if b"/v1/events" in peer.recv(65536):
                peer.sendall(ANSWER)
                self.peers.append(peer)
                self.subscribed.set()
            else:
                peer.close()


def unpack(package, folder):
    """Return the packaged interpreter's like, with the package's own libraries."""
    subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    site = folder / "root/usr/lib/updaterd/site"
    subprocess.run([PYTHON, "-m", "compileall", "-q", "-j0", site], check=True)
    argv = [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    packages = folder / f"v/lib/python{version.strip()}/site-packages"
    packages.mkdir(parents=True)
    (packages / "updaterd.pth").write_text(f"{site}\n")
    (folder / "v/pyvenv.cfg").write_text(
        f"home = {Path(PYTHON).parent}\ninclude-system-site-packages = false\n"
    )
    (folder / "v/bin").mkdir()
    python = folder / "v/bin/python"
    python.symlink_to(PYTHON)
    subprocess.run([python, "-I", "-m", "updaterd.daemon.bytecode"], check=True)
    return python


def cpu_s(pid):
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":", 1) for line in lines)
    names = ("Rss", "Pss", "Anonymous")
    return [int(sizes[name].split()[0]) / 1024 for name in names]


def served(folder):
    """Return a server's side of TLS, with a certificate of its own in `folder`."""
    named = ["-keyout", folder / "key.pem", "-out", folder / "ca.pem"]
    subprocess.run([*CERTIFICATE.split(), *named], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


def run_once(python, *, tls):
    """Return CPU seconds to subscribed; RSS, PSS and its own part, MiB, when idle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed = Feed(served(folder) if tls else None)
        feed.start()
        config = CONFIG.format(url=feed.url, folder=folder)
        if tls:
            config = config.replace("[trust]", f'ca_file = "{folder}/ca.pem"\n[trust]')
        (folder / "updaterd.toml").write_text(config)
        (folder / "root.json").write_text("{}")
        places = [f"--{n}-dir={folder / n}" for n in ("state", "cache", "runtime")]
        config = f"--config={folder / 'updaterd.toml'}"
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [python, "-I", "-m", "updaterd", "run", "--demo", config, *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # as in systemd/updaterd.service
                env={"PATH": "/usr/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
            )
        try:
            if not feed.subscribed.wait(60):
                sys.exit((folder / "log").read_text())
            spent = cpu_s(daemon.pid)
            samples = []  # until nothing has changed for two seconds, worker included
            while len(samples) < 20 or len(set(samples[-20:])) > 1:
                samples.append((cpu_s(daemon.pid), *children(daemon.pid)))
                time.sleep(0.1)
            return (spent, *memory_mib(daemon.pid))
        finally:
            daemon.terminate()
            daemon.wait()
            feed.listener.close()
            for peer in feed.peers:
                peer.close()


def least(runs):
    return [min(column) for column in zip(*runs, strict=True)]


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "dist"
    for unit, score in exposures():
        print(f"exposure  {unit:<40} {score}")
    packages = sorted([*folder.glob("updaterd*.deb"), *folder.glob("updaterd*.rpm")])
    for path in packages:
        print(f"size      {path.name:<40} {path.stat().st_size / 2**20:.2f} MiB")
    daemons = [path for path in packages if path.name.startswith("updaterd_")]
    if not daemons:
        sys.exit(f"no package in {folder}: python3 packaging/build.py --rpm")
    with tempfile.TemporaryDirectory() as scratch:
        python = unpack(daemons[0], Path(scratch))
        figures = {
            over: least(run_once(python, tls=over == "TLS") for _ in range(3))
            for over in ("plain HTTP", "TLS")
        }
    python_version = subprocess.run(
        [PYTHON, "--version"], check=True, capture_output=True, text=True
    ).stdout
    print(f"python    {python_version.strip()}")
    for over, (spent, rss, pss, own) in figures.items():
        print(
            f"idle      over {over:<10} {rss:.1f} MiB RSS, {pss:.1f} PSS, "
            f"{own:.1f} its own; {spent:.2f} s CPU to subscribed"
        )


if __name__ == "__main__":
    main()
