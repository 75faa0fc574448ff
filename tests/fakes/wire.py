# SPDX-License-Identifier: Apache-2.0
"""Two machines and the wire between them, all of it in namespaces of the test's own.

    with Wire(folder) as wire:
        wire.run("server", "ip", "addr")      # a command on one of the two
        wire.loss(0.10); wire.cut(); wire.mend(); wire.mute(53)

The wire is a process that holds one end of a TUN device in each namespace and passes
packets from one to the other, or loses them: by chance (seeded), all of them, or
those of one UDP port. So no kernel module for faults is needed, and nothing leaves
the two namespaces; they end with the processes that hold them.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
from pathlib import Path

SERVER, MACHINE = "198.18.0.1", "198.18.0.2"  # RFC 2544: for tests of networks
NAME = "updates.test"  # RFC 6761: resolved by nobody else
_DEVICE = "wire"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_UDP = 17


class Wire:
    """The two namespaces, `server` and `machine`, and what happens between them.

    Args:
        folder: for the machine's resolv.conf.
        seed: chooses which packets are lost.
    """

    def __init__(self, folder: Path, *, seed: int = 1):
        self.folder, self.seed = folder, seed
        self.holders: dict[str, subprocess.Popen] = {}
        self.passer: subprocess.Popen | None = None
        self.names: subprocess.Popen | None = None

    def __enter__(self):
        try:
            for name in ("server", "machine"):
                self._hold(name)
            pids = [str(self.holders[name].pid) for name in ("server", "machine")]
            self.passer = subprocess.Popen(
                [sys.executable, "-I", __file__, "pass", str(self.seed), *pids],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._say("mend")
            for name, own, other in (
                ("server", SERVER, MACHINE),
                ("machine", MACHINE, SERVER),
            ):
                self.run(name, *f"ip addr add {own} peer {other} dev {_DEVICE}".split())
                self.link(name, up=True)
            self._resolver()
            self.start_names()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """End the processes; the namespaces go with them."""
        for process in (self.passer, self.names, *self.holders.values()):
            if process is not None:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()

    # ---- faults -----------------------------------------------------------------

    def cut(self) -> None:
        """Lose every packet from now on: no FIN, no RST, no word."""
        self._say("cut")

    def mend(self) -> None:
        """Pass every packet again."""
        self._say("mend")

    def loss(self, share: float) -> None:
        """Lose this share of the packets, either way."""
        self._say(f"loss {share}")

    def mute(self, port: int) -> None:
        """Lose what goes to one UDP port."""
        self._say(f"mute {port}")

    def counts(self) -> tuple[int, int]:
        """Return how many packets were passed and lost since the start."""
        passed, lost = self._say("counts").split()
        return int(passed), int(lost)

    def link(self, name: str, *, up: bool) -> None:
        """Pull the cable of one of the two, or put it in again."""
        self.run(name, *f"ip link set {_DEVICE} {'up' if up else 'down'}".split())

    def stop_names(self) -> None:
        """End the name server: queries are refused."""
        self.names.kill()
        self.names.wait()
        self.names.stdout.close()

    def start_names(self) -> None:
        """Start the name server, which knows one name."""
        self.names = subprocess.Popen(
            [*self.inside("server"), sys.executable, "-I", __file__, "names"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "ready\n" == self.names.stdout.readline()

    # ---- commands ---------------------------------------------------------------

    def inside(self, name: str) -> list[str]:
        """Return the words that run a command in one of the two."""
        return ["nsenter", f"--target={self.holders[name].pid}", "--net", "--mount"]

    def run(self, name: str, *argv: object) -> str:
        """Run a command in one of the two, which must end well."""
        return subprocess.run(
            [*self.inside(name), *map(str, argv)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def _hold(self, name: str) -> None:
        """Start a process whose namespaces are the machine's."""
        shell = "ip link set lo up && echo ready && exec sleep infinity"
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", shell],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.holders[name] = process
        assert "ready\n" == process.stdout.readline(), "no namespace to be had"

    def _resolver(self) -> None:
        """Give the machine the wire's name server, and no other source of names."""
        for name, text in (
            ("resolv.conf", f"nameserver {SERVER}\noptions timeout:1 attempts:4\n"),
            ("nsswitch.conf", "hosts: files dns\n"),
        ):
            (self.folder / name).write_text(text)
            if Path("/etc", name).exists():
                self.run(
                    "machine", "mount", "--bind", self.folder / name, f"/etc/{name}"
                )
        assert NAME not in Path("/etc/hosts").read_text()

    def _say(self, command: str) -> str:
        self.passer.stdin.write(command + "\n")
        self.passer.stdin.flush()
        return self.passer.stdout.readline().strip()


# ---- the processes -----------------------------------------------------------------


def _device(pid: str) -> int:
    """Return the near end of a new TUN device in the namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net", "rb") as space:
        if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    wish = struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(device, _TUNSETIFF, wish)
    return device


def _to_port(packet: bytes, port: int) -> bool:
    """Tell whether a packet is UDP over IPv4 to `port`."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != _UDP:
        return False
    start = (packet[0] & 15) * 4
    return struct.unpack_from("!H", packet, start + 2)[0] == port


class _Passer:
    """What is between the two ends: passes packets, or loses them."""

    def __init__(self, seed: str, *pids: str):
        self.draw = random.Random(int(seed)).random
        self.ends = [_device(pid) for pid in pids]
        self.loss, self.muted, self.passed, self.lost = 0.0, 0, 0, 0

    def run(self) -> None:
        """Pass packets until stdin ends."""
        other = {self.ends[0]: self.ends[1], self.ends[1]: self.ends[0]}
        while True:
            for ready in select.select([sys.stdin, *self.ends], [], [])[0]:
                if ready is not sys.stdin:
                    self.hand_over(ready, other[ready])
                elif line := sys.stdin.readline():
                    self.obey(*line.split())
                    print(self.passed, self.lost, flush=True)
                else:
                    return

    def obey(self, order: str, value: str = "0") -> None:
        if order in {"cut", "mend", "loss"}:
            self.loss = {"cut": 1.0, "mend": 0.0}.get(order, float(value))
        if order in {"mend", "mute"}:
            self.muted = int(value)

    def hand_over(self, source: int, target: int) -> None:
        try:
            packet = os.read(source, 65536)
            if self.draw() < self.loss or _to_port(packet, self.muted):
                self.lost += 1
            else:
                os.write(target, packet)
                self.passed += 1
        except OSError as error:  # the link is down: as on any wire, it is lost
            if error.errno not in {errno.EIO, errno.EAGAIN, errno.EBADFD}:
                raise
            self.lost += 1


def _serve_names() -> None:
    """Answer A queries for one name (RFC 1035), and "no such record" for others."""
    import socket

    expected = b"".join(
        bytes([len(label)]) + label.encode() for label in (*NAME.split("."), "")
    )
    address = socket.inet_aton(SERVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((SERVER, 53))
        print("ready", flush=True)
        while True:
            query, asker = sock.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            name, kind = query[12 : end - 4].lower(), query[end - 4 : end - 2]
            is_known = name == expected and kind == b"\0\1"
            head = query[:2] + struct.pack("!5H", 0x8180, 1, int(is_known), 0, 0)
            record = struct.pack("!3HIH", 0xC00C, 1, 1, 0, 4) + address
            sock.sendto(head + query[12:end] + (record if is_known else b""), asker)


if __name__ == "__main__":
    if sys.argv[1] == "names":
        _serve_names()
    else:
        _Passer(*sys.argv[2:]).run()
