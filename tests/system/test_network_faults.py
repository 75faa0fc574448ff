# SPDX-License-Identifier: Apache-2.0
"""A machine whose network fails: `status` names the fault, and it heals by itself.

A real feed server and a real daemon in network namespaces of their own, joined by
`fakes/wire.py`. Recovery times are printed (`-s`), with the limits configured below:
what a fleet sees is the same in the proportion of its own limits.
"""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from fakes.certificates import make_certificate
from fakes.machine import Machine, cli
from fakes.site import Site
from fakes.tools import need, need_root, refuse
from fakes.trees import make_tree
from fakes.waiting import eventually
from fakes.wire import NAME, SERVER, Wire

IDLE_TIMEOUT_S = 9  # the kernel gives a silent peer up after 6: KEEPIDLE 3, 3 x 1
BACKOFF_MAX_S = 2
PORT = 8443


class Publisher(Site):
    """The publisher's side, in the server's namespace, over TLS."""

    def __init__(self, root, wire):
        super().__init__(root)
        self.inside = wire.inside("server")
        self.ca, _ = make_certificate(root, hosts=[NAME], addresses=[SERVER])
        self.releases = 0

    def start(self):
        address = self.root / "address"
        address.unlink(missing_ok=True)
        certificate = self.root / "server.pem"
        with (self.root / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [
                    *(*self.inside, *cli.command, "serve", "--repo", self.public),
                    *("--state", self.state, "--host", SERVER, "--port", str(PORT)),
                    *("--address-file", address, "--heartbeat", "1", "--grace", "1"),
                    *("--tls-cert", certificate, "--tls-key", certificate),
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        eventually(lambda: self._answer(address), event="the server")
        self.address = f"https://{SERVER}:{PORT}"

    def release(self):
        """Publish and announce the next release; return its version."""
        self.releases += 1
        version = f"1.{self.releases}.0"
        content = random.Random(self.releases).randbytes(400_000)
        tree = make_tree(self.root / version, {"lib/data": content, "V": version})
        done = subprocess.run(
            [
                *(*self.inside, *cli.command, "release", "push", tree),
                *("--repo", self.workspace, "--product", self.product),
                *("--version", version, "--channel", self.channel, "--deltas", "0"),
                *("--feed", self.feed_url, "--token-file", self.token_file),
                *("--ca-file", self.ca),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return version


class Client(Machine):
    """The machine, its daemon in its own namespace, which knows the feed by name."""

    def __init__(self, root, wire, site):
        place = f"https://{NAME}:{PORT}"
        super().__init__(
            root,
            feed=f"{place}/v1/events",
            repository=f"{place}/repo",
            bootstrap=site.bootstrap,
        )
        self.wire = wire
        text = self.config.read_text().replace("backoff_max_s = 0.5", "")
        limits = (
            f'[feed]\nca_file = "{site.ca}"\nidle_timeout_s = {IDLE_TIMEOUT_S}\n'
            f"backoff_max_s = {BACKOFF_MAX_S}\n"
        )
        self.config.write_text(text.replace("[feed]\n", limits))

    def start(self):
        with (self.root / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.wire.inside("machine"), *cli.command, "run", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    @property
    def connection(self):
        """What the daemon publishes about its subscription."""
        assert self.daemon.poll() is None, self.log()[-3000:]
        path = self.root / "run/status.json"
        document = json.loads(path.read_bytes()) if path.exists() else {"feed": {}}
        return document["feed"].get("connection") or {"phase": "", "code": ""}

    def names_fault(self, *codes):
        """Wait until `updaterd status` names one of these; return which."""

        def named():
            done = self("status", "--json", expect=None)
            document = json.loads(done.stdout)
            code = (document["feed"]["connection"] or {}).get("code")
            if code in codes and done.returncode == 20:
                assert document["state"] == "degraded"
                return code, document["problems"][0]
            return None

        code, problem = eventually(named, event=f"{codes}\n{self.log()[-2000:]}")
        assert problem.startswith("feed down: ")
        return code

    def is_open(self):
        return self.connection["phase"] == "open"


@pytest.fixture(scope="module")
def wire(tmp_path_factory):
    """The two namespaces; without them nothing here means anything."""
    need_root()
    for tool, package in (
        ("ip", "iproute2"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
    ):
        need(tool, package)
    if not os.path.exists("/dev/net/tun"):
        refuse("needs /dev/net/tun (modprobe tun)")
    with Wire(tmp_path_factory.mktemp("wire"), seed=20) as found:
        yield found


@pytest.fixture(scope="module")
def site(wire, tmp_path_factory):
    found = Publisher(tmp_path_factory.mktemp("site"), wire)
    found.start()
    yield found
    found.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def machine(wire, site, tmp_path_factory):
    """A subscribed machine with a first release."""
    found = Client(tmp_path_factory.mktemp("machine"), wire, site)
    found.start()
    try:
        eventually(found.is_open, event=f"the subscription\n{found.log()}")
        found.wait_for(site.release())
        yield found
    finally:
        found.stop()


@pytest.fixture(autouse=True)
def healthy(machine, wire):
    """Each fault begins on a wire that works, and leaves one that does."""
    eventually(machine.is_open, event="the subscription")
    yield
    wire.mend()


def recovered(machine, site, missed, since, what):
    """Print how long it took to be back; what was missed comes, and what is new."""
    eventually(machine.is_open, event=f"the subscription\n{machine.log()[-2000:]}")
    back = time.monotonic() - since
    machine.wait_for(missed)
    caught_up = time.monotonic() - since
    print(
        f"{what}: subscribed {back:.1f} s after the end of the fault, the release "
        f"missed meanwhile installed after {caught_up:.1f} s"
    )
    fresh = site.release()
    machine.wait_for(fresh)
    assert 0 == machine("status", expect=None).returncode


def test_half_open(machine, site, wire):
    """The other end vanishes without a word: the kernel's probes get no answer."""
    wire.cut()
    begun = time.monotonic()
    machine.names_fault("half_open")
    print(f"half open: `half_open` after {time.monotonic() - begun:.1f} s")
    missed = site.release()
    wire.mend()
    recovered(machine, site, missed, time.monotonic(), "half open")


def test_a_server_that_hangs(machine, site):
    """Its kernel answers the probes, it says nothing: that has another name."""
    site.server.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    try:
        machine.names_fault("idle_timeout")
        print(f"server hangs: `idle_timeout` after {time.monotonic() - begun:.1f} s")
    finally:
        site.server.send_signal(signal.SIGCONT)
    since = time.monotonic()
    recovered(machine, site, site.release(), since, "server hangs")


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_dns_down(machine, site, wire, how):
    """No name, no connection: `dns`, whether the name server says no or nothing."""
    if how == "refused":
        wire.stop_names()
    else:
        wire.mute(53)
    try:
        # A stream that stands needs no name; the server's restart ends it.
        site.stop()
        site.start()
        begun = time.monotonic()
        machine.names_fault("dns")
        print(f"dns {how}: `dns` after {time.monotonic() - begun:.1f} s")
        missed = site.release()
    finally:
        if how == "refused":
            wire.start_names()
        wire.mend()
    recovered(machine, site, missed, time.monotonic(), f"dns {how}")


def test_ten_percent_loss(machine, site, wire):
    """A bad line slows an update down and stops none; the stream holds, or returns."""
    begun = time.monotonic()
    machine.wait_for(site.release())
    clean = time.monotonic() - begun
    lost_before = wire.counts()
    breaks = machine.log().count("phase=waiting")
    wire.loss(0.10)
    times = []
    for _ in range(3):
        begun = time.monotonic()
        machine.wait_for(site.release(), within_s=400)  # one retry, or three
        times.append(time.monotonic() - begun)
    after = wire.counts()
    passed, lost = (now - then for now, then in zip(after, lost_before, strict=True))
    breaks = machine.log().count("phase=waiting") - breaks
    eventually(lambda: machine("status", expect=None).returncode == 0)
    wire.mend()
    assert 0.05 < lost / (passed + lost) < 0.15
    shown = ", ".join(f"{took:.1f}" for took in times)
    print(
        f"10 % loss: {lost} of {passed + lost} packets lost, {breaks} reconnections; "
        f"push to installed {shown} s ({clean:.1f} s without loss)"
    )
    recovered(machine, site, site.release(), time.monotonic(), "10 % loss")


def test_a_short_flap_goes_unnoticed(machine, site, wire):
    """A cable out and in again, three times: TCP bridges it, nothing reconnects."""
    opened = machine.connection["since"]
    for _ in range(3):
        wire.link("machine", up=False)
        wire.link("machine", up=True)
    machine.wait_for(site.release())
    assert opened == machine.connection["since"]
    print("link flap, three times at once: the stream held")


def test_link_down(machine, site, wire):
    """A cable that stays out is named; once in again, the machine is back."""
    wire.link("machine", up=False)
    begun = time.monotonic()
    try:
        first = machine.names_fault(*(
            "half_open",
            "idle_timeout",
            "unreachable",
            "dns",
            "reset",
        ))
        print(f"link down: `{first}` after {time.monotonic() - begun:.1f} s")
        # and when it tries again: neither name server nor feed can be reached
        machine.names_fault("dns", "unreachable")
        missed = site.release()
    finally:
        wire.link("machine", up=True)
    recovered(machine, site, missed, time.monotonic(), "link down")
