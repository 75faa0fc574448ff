# SPDX-License-Identifier: Apache-2.0
"""On a real machine: systemd as PID 1, the package, the daemon as its own user.

The tests go on one machine, in this order, as a fleet's machine would live. The feed
and the repository are on the host's side, over loopback.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from fakes.machine import cli
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually

ACME_UNIT = """
[Unit]
Description=An application
# soon used up by a release that crashes: the one that comes back must start
StartLimitIntervalSec=1h
StartLimitBurst=3
[Service]
DynamicUser=yes
ExecStart=/opt/acme/current/bin/acme
Restart=on-failure
RestartSec=100ms
"""
# what a test cannot wait for: the packaged values are minutes
FAST = """
[Service]
ExecStart=
ExecStart=/usr/bin/updaterd run --demo
RestartSec=50ms
WatchdogSec=3
TimeoutAbortSec=2
Environment=UPDATERD_TEST=1
"""


class Ops(Site):
    """One repository with two products: the application, and updaterd itself."""

    def __init__(self, root: Path):
        self.root = root
        self.workspace, self.state = root / "ops", root / "feed"
        self.public = self.workspace / "public"
        self.product, self.channel = "acme", "stable"
        self.server, self.address, self._port = None, "", 0
        cli(
            *("release", "init", self.workspace, "--profile", "demo"),
            *("--product", "acme", "--product", "updaterd", "--channel", "stable"),
        )
        self.token_file = root / "token"
        self.token_file.write_text(
            cli(
                *("token", "create", "--state", self.state),
                *("--scope", "publish:acme/stable"),
                *("--scope", "publish:updaterd/stable"),
            ).stdout.strip()
        )
        self.token_file.chmod(0o600)

    def push_as(self, product, *words):
        self.product = product
        try:
            return self.push(*words)
        finally:
            self.product = "acme"


def application(folder: Path, version: str, *, healthy: bool = True) -> Path:
    data = random.Random(1).randbytes(300_000)
    end = "exec sleep infinity" if healthy else "exit 7"
    return make_tree(
        folder / version,
        {
            "bin/acme": f"#!/bin/sh\necho acme {version}\n{end}\n",
            "bin/healthcheck": "#!/bin/sh\nexec systemctl is-active --quiet acme\n",
            "lib/data": data + version.encode(),
            "VERSION": version,
        },
    )


@pytest.fixture(scope="module")
def ops(tmp_path_factory):
    site = Ops(tmp_path_factory.mktemp("ops"))
    site.start()
    yield site
    site.stop()


def test_the_package_installs_and_waits_to_be_configured(machine):
    """No daemon before there is a configuration; the command and its user are there."""
    print(machine.must("updaterd", "--version"))
    assert "inactive" == machine.show("updaterd", "ActiveState")
    assert "updaterd" in machine.must("getent", "passwd", "updaterd")
    assert "" == machine.must("dpkg", "--audit")
    stamp = machine.root / "usr/lib/updaterd/bytecode/made-for"
    assert "3.11.2" in stamp.read_text()  # byte code for the Python that is there
    # the units as installed, to the systemd they are for
    for unit in ("updaterd.service", "updaterd@acme.service"):
        done = machine.run("systemd-analyze", "verify", "--man=no", unit)
        assert ("", "") == (done.stdout, done.stderr)
    print(machine.must("systemd-analyze", "security", "--no-pager", "updaterd")[-80:])


def test_the_daemon_runs_as_its_own_user_with_exactly_its_grants(machine, ops):
    """Configured, granted, enabled: subscribed and ready within its start limit."""
    machine.write("/etc/systemd/system/acme.service", ACME_UNIT)
    machine.write("/etc/systemd/system/updaterd.service.d/90-test.conf", FAST)
    bootstrap = ops.bootstrap.read_text()
    machine.write("/etc/updaterd/root.json", bootstrap)
    machine.write(
        "/etc/updaterd/updaterd.toml",
        f"""
[feed]
url = "{ops.feed_url}"
backoff_min_s = 0.1
backoff_max_s = 0.5
[trust]
root = "/etc/updaterd/root.json"
repository = "{ops.address}/repo"
[download]
min_free = "1MiB"
[products.acme]
root = "/opt/acme"
units = ["acme.service"]
health = {{ command = ["/opt/acme/current/bin/healthcheck"], timeout_s = 5 }}
[products.updaterd]
root = "/opt/updaterd"
health = {{ command = ["/usr/lib/updaterd/self-test"], timeout_s = 180 }}
""",
    )
    machine.must("updaterd", "config", "grant", "--write", "--demo")
    machine.must("systemctl", "enable", "--now", "updaterd")
    pid = machine.show("updaterd", "MainPID")
    status = machine.must("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    uid = machine.must("id", "-u", "updaterd").strip()
    assert {uid} == set(fields["Uid"].split())
    assert 0 == int(fields["CapEff"], 16)
    assert 1 == int(fields["NoNewPrivs"])
    assert 2 == int(fields["Seccomp"])
    eventually(machine.subscribed, event="the subscription")


def test_a_release_arrives_and_its_unit_is_restarted(machine, ops, tmp_path):
    """Pushed, installed, the application's unit started by the daemon's user."""
    ops.push(application(tmp_path, "1.0.0"), "1.0.0")
    machine.wait_for("acme", "1.0.0")
    assert "active" == machine.show("acme", "ActiveState")
    ops.push(application(tmp_path, "1.1.0"), "1.1.0")
    machine.wait_for("acme", "1.1.0")
    assert "acme 1.1.0" in machine.journal("-u", "acme")
    # the journal's fields, as an alert asks for them
    words = ("UPDATERD_EVENT=release_installed", "UPDATERD_PRODUCT=acme", "-o", "json")
    eventually(lambda: len(machine.journal(*words).splitlines()) == 2)
    entry = json.loads(machine.journal(*words).splitlines()[-1])
    assert ("1.1.0", "1.0.0", "INSTALLED") == (
        entry["UPDATERD_RELEASE"],
        entry["UPDATERD_FROM_RELEASE"],
        entry["UPDATERD_STATE"],
    )
    accepted = machine.journal("UPDATERD_EVENT=event_accepted", "-o", "json")
    assert '"UPDATERD_EVENT_ID":' in accepted


def test_no_other_unit_can_be_restarted(machine):
    """polkit says yes for acme.service alone."""
    other = machine.run(
        *("systemctl", "--no-ask-password", "restart", "systemd-journald"),
        user="updaterd",
    )
    assert 0 != other.returncode
    assert "uthentication" in other.stderr
    for verb in ("mask", "disable"):
        done = machine.run(
            *("systemctl", "--no-ask-password", verb, "acme"), user="updaterd"
        )
        assert 0 != done.returncode


def test_right_to_restart_is_asked_of_systemd_and_nothing_is_restarted(machine):
    """As the daemon's user, by the question itself; the same stands in the journal."""
    before = machine.show("acme", "ExecMainPID"), machine.show("dbus", "ExecMainPID")
    machine.must("updaterd", "config", "check", "--demo")
    rule = "/etc/polkit-1/rules.d/50-updaterd.rules"
    machine.must("mv", rule, "/root/rule")
    check = ("updaterd", "config", "check", "--offline", "--demo")
    done = eventually(lambda: (d := machine.run(*check)).returncode and d)
    machine.must("systemctl", "reload", "updaterd")
    finding = ("-o", "json", "-p", "warning", "UPDATERD_EVENT=config_finding")
    told = eventually(lambda: machine.journal(*finding).splitlines())
    machine.must("mv", "/root/rule", rule)

    assert "acme.service may not be restarted" in done.stderr
    assert "updaterd config grant --write" in done.stderr
    assert "for the user updaterd" in done.stderr
    assert "restart_refused" == json.loads(told[0])["UPDATERD_CODE"]
    assert "config grant --write" in json.loads(told[0])["UPDATERD_REMEDY"]
    eventually(lambda: machine.run(*check).returncode == 0)
    after = machine.show("acme", "ExecMainPID"), machine.show("dbus", "ExecMainPID")
    assert before == after


def test_reload_of_a_broken_configuration_fails_and_changes_nothing(machine):
    machine.write("/etc/updaterd/conf.d/broken.toml", "[feed")
    pid, version = machine.show("updaterd", "MainPID"), machine.installed("acme")

    assert 0 != machine.run("systemctl", "reload", "updaterd").returncode

    assert "active" == machine.show("updaterd", "ActiveState")
    document = machine.status()
    assert "not valid TOML" in document["configuration"]["refused"]["message"]
    assert version == machine.installed("acme")
    (machine.root / "etc/updaterd/conf.d/broken.toml").unlink()
    machine.must("systemctl", "reload", "updaterd")
    assert pid == machine.show("updaterd", "MainPID")
    eventually(machine.subscribed)


def test_cache_that_root_deleted_is_back(machine):
    """Within its unit the daemon cannot make it: systemd does, at a new start."""
    machine.must("rm", "-rf", "/var/cache/updaterd")

    def back():
        done = machine.run("stat", "-c", "%U %a", "/var/cache/updaterd")
        return done.stdout.strip() == "updaterd 700"

    eventually(back)
    eventually(machine.subscribed)
    assert 0 == machine.run("updaterd", "update", "acme", "--demo").returncode


def test_a_release_that_does_not_start_is_rolled_back(machine, ops, tmp_path):
    """The old one runs again; the failed one is blocked and status says so."""
    ops.push(application(tmp_path, "1.2.0", healthy=False), "1.2.0")
    eventually(
        lambda: (
            "1.2.0" in str(machine.product("acme").get("last") or "")
            or "rolled" in str(machine.product("acme")).lower()
        ),
        event="the roll back",
        within_s=120,
    )
    machine.wait_for("acme", "1.1.0")
    eventually(lambda: machine.show("acme", "ActiveState") == "active")
    assert "1.1.0" == (machine.root / "opt/acme/current").readlink().name
    ops.push(application(tmp_path, "1.3.0"), "1.3.0")
    machine.wait_for("acme", "1.3.0")


def test_anybody_may_ask_for_the_status(machine):
    """status.json is public; the state directory is not."""
    done = machine.run("updaterd", "status", user=65534)
    print(done.stdout)
    assert "1.3.0" in done.stdout
    assert done.returncode in {0, 20, 30}, done.stderr
    denied = machine.run("ls", "/var/lib/updaterd", user=65534)
    assert 0 != denied.returncode


def test_what_root_types_leaves_nothing_of_roots_behind(machine):
    """`sudo updaterd update` must not lock the daemon out of its own files."""
    machine.run("updaterd", "update", "acme", "--demo")
    machine.run("updaterd", "check", "--demo")
    found = machine.must(
        "find", "/var/lib/updaterd", "/var/cache/updaterd", "/opt/acme", "-user", "root"
    )
    assert "" == found


def test_a_hung_daemon_is_restarted_by_the_watchdog(machine):
    """SIGSTOP is a hang that no code of ours can notice."""
    before = machine.show("updaterd", "NRestarts")
    pid = machine.show("updaterd", "MainPID")
    begun = time.monotonic()
    machine.must("sh", "-c", f"kill -STOP {pid}")
    eventually(
        lambda: (
            machine.show("updaterd", "NRestarts") != before
            and machine.show("updaterd", "ActiveState") == "active"
        ),
        within_s=60,
        event="the watchdog",
    )
    print(f"hung to active again: {time.monotonic() - begun:.1f} s (WatchdogSec=3)")
    assert "watchdog" in machine.journal("-u", "updaterd").lower()


def test_a_hundred_kills_lose_nothing(machine, ops, tmp_path):
    """SIGKILL at any moment of start and work; what is pushed meanwhile arrives."""
    draw = random.Random(7)
    seen = set()
    for number in range(100):
        if number == 50:
            ops.push(application(tmp_path, "1.4.0"), "1.4.0")

        def fresh():
            pid = machine.show("updaterd", "MainPID")
            return pid if pid != "0" and pid not in seen else None

        pid = eventually(fresh, event=f"start {number}")
        seen.add(pid)
        time.sleep(draw.random() * 0.4)  # chooses the instant; waits for nothing
        machine.run("sh", "-c", f"kill -KILL {pid}")
    eventually(lambda: fresh() and machine.subscribed(), event="the start after them")
    machine.wait_for("acme", "1.4.0")
    assert 100 == len(seen)
    assert "ok\n" == machine.must(
        *("setpriv", "--reuid=updaterd", "--clear-groups", "python3", "-c"),
        "import sqlite3; print(sqlite3.connect('/var/lib/updaterd/state.db')"
        ".execute('PRAGMA integrity_check').fetchone()[0])",
    )


def test_shutdown_during_a_trial_blames_no_release(machine, ops, tmp_path):
    """Units stop, the bus ends, the worker is told to: after the boot it goes on."""
    tree = application(tmp_path, "1.4.5")
    check = tree / "bin/healthcheck"
    check.write_text("#!/bin/sh\nsleep 3\nexec systemctl is-active --quiet acme\n")
    ops.push(tree, "1.4.5")

    def state():
        said = machine.run("updaterd", "status", "--json", "--demo").stdout
        (found,) = (p for p in json.loads(said)["products"] if p["name"] == "acme")
        return (found["deployment"] or {}).get("state")

    eventually(lambda: state() == "PROBATION", event="the trial", within_s=120)
    machine.reboot()
    machine.wait_for("acme", "1.4.5", within_s=180)
    said = machine.must("updaterd", "history", "acme", "--json", "--demo")
    rows = [json.loads(line) for line in said.splitlines()]
    rows = [row for row in rows if row["version"] == "1.4.5"]
    print(json.dumps(rows, indent=1))
    assert ["INSTALLED"] == [row["state"] for row in rows]
    assert 2 <= sum(step["state"] == "PROBATION" for step in rows[0]["steps"])
    assert "active" == machine.show("acme", "ActiveState")


def test_sigterm_ends_it_within_its_limit(machine):
    """`systemctl stop` is quick; TimeoutStopSec is for a worker's critical section."""
    eventually(lambda: machine.show("updaterd", "ActiveState") == "active")
    begun = time.monotonic()
    machine.must("systemctl", "stop", "updaterd")
    took = time.monotonic() - begun
    print(f"stop: {took:.2f} s")
    assert "success" == machine.show("updaterd", "Result")
    machine.must("systemctl", "start", "updaterd")
    machine.must("systemctl", "reload", "updaterd")
    eventually(machine.subscribed, event="the subscription")


def own_tree(built: Path, folder: Path, version: str, sabotage: str = "") -> Path:
    """Return updaterd's tree as release `version`; hard links to what was built."""
    tree = folder / version
    shutil.copytree(built / "tree", tree, copy_function=os.link)
    for name, change in (
        ("updaterd/__init__.py", lambda t: t + f'\n__version__ = "{version}"\n'),
        ("updaterd/daemon/service.py", lambda t: t + sabotage),
    ):
        text = change((tree / name).read_text())
        (tree / name).unlink()
        (tree / name).write_text(text)
        (tree / name).chmod(0o644)
    return tree


def daemon_code(machine) -> str:
    """Return the release that the running daemon is, as it said at its start."""
    pid = machine.show("updaterd", "MainPID")
    lines = machine.journal(*(
        "-o",
        "json",
        "UPDATERD_EVENT=daemon_started",
        f"_PID={pid}",
    ))
    return json.loads(lines.splitlines()[-1])["UPDATERD_VERSION"] if lines else ""


def test_it_updates_itself(machine, ops, built, tmp_path):
    """A newer updaterd is staged, self-tested, switched to, restarted into."""
    ops.push_as(
        "updaterd", own_tree(built, tmp_path, "0.9.1"), "0.9.1", "--deltas", "0"
    )
    machine.wait_for("updaterd", "0.9.1", within_s=300)
    eventually(
        lambda: daemon_code(machine) == "0.9.1",
        within_s=60,
        event=f"the new code\n{machine.status().get('daemon')}",
    )
    eventually(lambda: machine.show("updaterd", "ActiveState") == "active")


UNLOADABLE = "\nimport lib_that_this_machine_does_not_have\n"


def test_an_updater_that_fails_its_self_test_is_never_switched_to(
    machine, ops, built, tmp_path
):
    """Staged, asked, refused: `current` does not move, the daemon goes on."""
    pid = machine.show("updaterd", "MainPID")
    tree = own_tree(built, tmp_path, "0.9.15", UNLOADABLE)
    ops.push_as("updaterd", tree, "0.9.15", "--deltas", "0")

    def last():
        found = machine.product("updaterd")["last"]
        return found if found["version"] == "0.9.15" else None

    refused = eventually(last, within_s=240, event=machine.journal("-u", "updaterd"))
    assert ("REJECTED", "self_test_failed") == (refused["state"], refused["code"])
    assert "lib_that_this_machine_does_not_have" in refused["reason"]
    assert "0.9.1" == (machine.root / "opt/updaterd/current").readlink().name
    assert pid == machine.show("updaterd", "MainPID")


CRASHES = "\ndef serve(*_, **__):\n    raise RuntimeError('born broken')\n"
HANGS = """
def serve(*_, **__):
    import time
    Notifier.from_environ().ready("hangs")
    time.sleep(1e6)
"""


@pytest.mark.parametrize(
    ("version", "sabotage"), [("0.9.2", CRASHES), ("0.9.3", HANGS)]
)
def test_an_updater_that_does_not_come_up_is_left_by_the_guard(
    machine, ops, built, tmp_path, version, sabotage
):
    """It passes its self-test, then crashes at start, or hangs: back, and blocked."""
    good = (machine.root / "opt/updaterd/current").readlink().name
    tree = own_tree(built, tmp_path, version, sabotage)
    ops.push_as("updaterd", tree, version, "--deltas", "0")
    eventually(
        lambda: f"updaterd {version} is left" in machine.journal("-u", "updaterd"),
        within_s=300,
        event=f"the guard\n{machine.journal('-u', 'updaterd', '-n', '50')}",
    )
    eventually(lambda: daemon_code(machine) == good, within_s=60)
    assert good == (machine.root / "opt/updaterd/current").readlink().name
    machine.wait_for("updaterd", good)
    # and it goes on with its work, without trying that release again
    ops.push(application(tmp_path, f"2.{version}"), f"2.{version}")
    machine.wait_for("acme", f"2.{version}")
    assert good == machine.installed("updaterd")


def test_footprint(machine):
    """
    Resident memory of the idle daemon with the packaged Python, and its start: 28 MiB,
    of which 12 are files that others share (docs/decisions/0012); some room for more.
    """
    machine.must("systemctl", "restart", "updaterd")
    eventually(machine.subscribed, event="the subscription")
    pid = machine.show("updaterd", "MainPID")
    eventually(
        lambda: not machine.must("cat", f"/proc/{pid}/task/{pid}/children").strip(),
        event="the end of workers",
    )
    status = machine.must("cat", f"/proc/{pid}/status")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    rss = int(fields["VmRSS"].split()[0]) / 1024
    stat = machine.must("cat", f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    print(f"RSS {rss:.1f} MiB, start to subscribed {cpu:.2f} s CPU")
    assert rss <= 31
    assert cpu <= 1.0  # aim 0.5; a busy machine counts more


def test_purge_leaves_applications_alone(machine):
    """Removing the updater takes its own things, nobody else's."""
    machine.must("dpkg", "--purge", "updaterd")
    assert not (machine.root / "var/lib/updaterd").exists()
    assert not (machine.root / "usr/lib/updaterd").exists()
    assert (machine.root / "opt/acme/current/bin/acme").exists()
    assert "active" == machine.show("acme", "ActiveState")
    assert "" == machine.must("dpkg", "--audit")
