# SPDX-License-Identifier: Apache-2.0
"""The publisher's units and further daemons, started by a real systemd.

One machine is all of it: the feed server, the signer whose timer renews signatures,
and two daemons of two vendors, each with its own user, configuration and product. The
repository is of the profile `prod`: its keys are sealed, and the passphrase and the
feed's token come to the signer as credentials.
"""

import json
import socket

import httpx
import pytest
from fakes.waiting import eventually

REPO = "/srv/updaterd"
PASSPHRASE = "correct horse battery staple"  # noqa: S105 # of a test's keys
VENDORS = ("red", "blue")


@pytest.fixture(scope="module")
def feed(machine, built):
    """The package updaterd-feed, its users, and a repository of two products."""
    (deb,) = built.glob("updaterd-feed_*.deb")
    (machine.root / "feed.deb").write_bytes(deb.read_bytes())
    machine.must("dpkg", "--install", "/feed.deb")
    machine.must("install", "-d", "-o", "updaterd-release", REPO)
    sealed = ("env", f"UPDATERD_PASSPHRASE={PASSPHRASE}", "updaterd", "release")
    products = [word for name in VENDORS for word in ("--product", name)]
    machine.must(
        *(*sealed, "init", REPO, "--profile", "prod", *products),
        user="updaterd-release",
    )
    machine.write("/etc/credstore/updaterd.passphrase", PASSPHRASE + "\n", 0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"UPDATERD_FEED_OPTIONS=--port {port}\n"
    machine.write("/etc/default/updaterd-feed", options)
    found = Feed(machine, sealed, f"http://127.0.0.1:{port}")
    yield found
    for unit in (
        *("updaterd-refresh.timer", "updaterd-feed"),
        *(f"updaterd@{name}" for name in VENDORS),
        *(f"{name}.service" for name in VENDORS),
    ):
        machine.run("systemctl", "disable", "--now", unit)
    machine.must("dpkg", "--purge", "updaterd-feed")


class Feed:
    """The publisher's commands on that machine."""

    def __init__(self, machine, sealed, address):
        self.machine, self.sealed, self.address = machine, sealed, address

    def get(self, path):
        return httpx.get(self.address + path).raise_for_status().content

    def is_ready(self):
        try:
            self.get("/readyz")
        except httpx.HTTPError:
            return False
        return True

    def timestamp(self):
        """Return the version of the signature that says what is fresh."""
        return json.loads(self.get("/repo/metadata/timestamp.json"))["signed"][
            "version"
        ]

    def push(self, name, version):
        tree = f"/var/trees/{name}-{version}"
        script = "#!/bin/sh\nexec sleep infinity\n"
        self.machine.write(f"{tree}/bin/app", script, 0o755)
        self.machine.must("chown", "-R", "updaterd-release:", tree)
        self.machine.must(
            *(*self.sealed, "push", tree, "--repo", REPO, "--product", name),
            *("--version", version, "--channel", "stable"),
            *("--feed", f"{self.address}/v1/events", "--token-file", f"{REPO}/token"),
            user="updaterd-release",
        )


class Daemon:
    """One of the further daemons, asked as an administrator asks it."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name
        self.unit = f"updaterd@{name}.service"
        self.config = f"/etc/updaterd-{name}/updaterd.toml"

    def status(self):
        done = self.machine.run("updaterd", "status", "--json", "--config", self.config)
        return json.loads(done.stdout) if done.stdout else {}

    def is_open(self):
        return (self.status()["feed"]["connection"] or {}).get("phase") == "open"

    def installed(self):
        (product,) = self.status()["products"]
        return product["installed"] and product["installed"]["version"]

    def wait_for(self, version):
        eventually(
            lambda: self.installed() == version,
            event=f"{self.name} {version}: {self.status()}\n"
            + self.machine.journal("-u", self.unit, "-n", "40"),
        )


@pytest.fixture(scope="module")
def daemons(machine, feed):
    return [Daemon(machine, name) for name in VENDORS]


def test_the_feed_unit_serves_as_a_user_that_can_write_nothing_of_the_repository(
    machine, feed
):
    """It answers, holds its state, and neither keys nor releases are its to change."""
    machine.must("systemctl", "enable", "--now", "updaterd-feed")
    eventually(lambda: machine.show("updaterd-feed", "ActiveState") == "active")

    try:
        eventually(feed.is_ready)
    except AssertionError:
        pytest.fail(machine.journal("-u", "updaterd-feed", "-n", "30"))
    assert 1 == feed.timestamp()
    pid = machine.show("updaterd-feed", "MainPID")
    status = machine.must("cat", f"/proc/{pid}/status")
    uid = machine.must("id", "-u", "updaterd-feed").strip()
    assert f"Uid:\t{uid}\t{uid}" in status
    denied = machine.run("touch", f"{REPO}/public/x", user="updaterd-feed")
    assert 0 != denied.returncode
    denied = machine.run("ls", f"{REPO}/keys", user="updaterd-feed")
    assert 0 != denied.returncode
    scopes = [
        word for name in VENDORS for word in ("--scope", f"publish:{name}/stable")
    ]
    token = machine.must(
        *("updaterd", "token", "create", "--state", "/var/lib/updaterd-feed", *scopes),
        user="updaterd-feed",
    ).strip()
    machine.write("/etc/credstore/updaterd.token", token, 0o600)
    machine.write(f"{REPO}/token", token, 0o600)
    machine.must("chown", "updaterd-release:", f"{REPO}/token")


def test_two_vendors_keep_their_products_apart(machine, feed, daemons):
    """Two users, configurations, journals; each restarts its own unit, no other."""
    public = f"{REPO}/public/metadata/1.root.json"
    bootstrap = (machine.root / public.lstrip("/")).read_text()
    for daemon in daemons:
        name = daemon.name
        user = f'u updaterd-{name} - "updaterd for {name}" /var/lib/updaterd-{name}\n'
        machine.write(f"/etc/sysusers.d/updaterd-{name}.conf", user)
        machine.must("systemd-sysusers")
        machine.write(f"/etc/updaterd-{name}/root.json", bootstrap)
        machine.write(
            daemon.config,
            f"""
[feed]
url = "{feed.address}/v1/events"
backoff_min_s = 0.1
backoff_max_s = 1
[trust]
root = "/etc/updaterd-{name}/root.json"
repository = "{feed.address}/repo"
[download]
min_free = "1MiB"
[products.{name}]
root = "/opt/{name}"
units = ["{name}.service"]
""",
        )
        service = f"[Service]\nExecStart=/opt/{name}/current/bin/app\nDynamicUser=yes\n"
        machine.write(f"/etc/systemd/system/{name}.service", service)
        machine.must(
            *("updaterd", "config", "grant", "--config", daemon.config),
            *("--unit", daemon.unit, "--write"),
        )
        machine.must("systemctl", "enable", "--now", daemon.unit)
    for daemon in daemons:
        eventually(daemon.is_open, event=machine.journal("-u", daemon.unit, "-n", "30"))
    for daemon in daemons:
        feed.push(daemon.name, "1.0.0")
        daemon.wait_for("1.0.0")
        assert "active" == machine.show(daemon.name, "ActiveState")
    for own, other in (VENDORS, VENDORS[::-1]):
        user = f"updaterd-{own}"
        owner = machine.must("stat", "--format=%U", f"/opt/{own}/current/bin/app")
        assert user == owner.strip()
        denied = machine.run("touch", f"/opt/{other}/x", user=user)
        assert 0 != denied.returncode
        restart = ("systemctl", "--no-ask-password", "restart")
        assert 0 == machine.run(*restart, f"{own}.service", user=user).returncode
        assert 0 != machine.run(*restart, f"{other}.service", user=user).returncode


def test_what_root_asks_one_daemon_is_done_as_its_user(machine, daemons):
    """`--config /etc/updaterd-NAME/updaterd.toml` finds that daemon's state."""
    daemon, other = daemons
    machine.must("updaterd", "hold", daemon.name, "--config", daemon.config)
    machine.must("updaterd", "check", "--config", daemon.config)
    (product,) = daemon.status()["products"]
    assert product["hold"]
    machine.must("updaterd", "unhold", "--config", daemon.config)
    state = f"/var/lib/updaterd-{daemon.name}"
    assert "" == machine.must("find", state, "-user", "root")
    for one in (daemon, other):
        told = machine.must("updaterd", "history", "--json", "--config", one.config)
        assert [one.name] == [json.loads(line)["product"] for line in told.splitlines()]


def test_the_signer_renews_what_expires_and_tells_the_machines(machine, feed, daemons):
    """The timer starts it; its passphrase and token are credentials, in no argument."""
    before = feed.timestamp()
    soon = (
        "[Timer]\nOnCalendar=\nOnActiveSec=100ms\nRandomizedDelaySec=0\nAccuracySec=1\n"
    )
    machine.write("/etc/systemd/system/updaterd-refresh.timer.d/test.conf", soon)
    options = f"UPDATERD_REFRESH_OPTIONS=--feed {feed.address}/v1/events\n"
    machine.write("/etc/default/updaterd-refresh", options)
    machine.must("systemctl", "daemon-reload")
    cursors = [daemon.status()["feed"]["cursor"] for daemon in daemons]
    machine.must("systemctl", "enable", "--now", "updaterd-refresh.timer")

    def renewed():
        result = machine.show("updaterd-refresh", "Result")
        said = machine.journal("-u", "updaterd-refresh", "-n", "20")
        assert "success" == result, said
        return feed.timestamp() == before + 1

    eventually(renewed, event=machine.journal("-u", "updaterd-refresh", "-n", "20"))
    for daemon, cursor in zip(daemons, cursors, strict=True):
        eventually(
            lambda daemon=daemon, cursor=cursor: (
                daemon.status()["feed"]["cursor"] != cursor
            ),
            event="the pushed metadata",
        )
    assert PASSPHRASE not in machine.journal()
    denied = machine.run(
        "cat", "/etc/credstore/updaterd.passphrase", user="updaterd-release"
    )
    assert 0 != denied.returncode


def test_purging_the_feed_leaves_keys_and_releases(machine, feed, daemons):
    """The daemons go on with what they have."""
    machine.must("systemctl", "stop", "updaterd-refresh.timer")
    machine.must("dpkg", "--purge", "updaterd-feed")
    assert (machine.root / "srv/updaterd/keys").is_dir()
    assert (machine.root / "srv/updaterd/public/metadata").is_dir()
    assert "active" == machine.show(daemons[0].unit, "ActiveState")
