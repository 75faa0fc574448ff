# SPDX-License-Identifier: Apache-2.0
"""What polkit grants the daemon's user, asked of real systemds: Debian 12's and 13's.

Only polkitd, systemd and the rule are looked at, so that nothing has to be installed.
"""

import shutil
import subprocess

import pytest

from updaterd.core.grants import polkit_rule

from .conftest import PACKAGES, Booted

UNIT = "[Service]\nExecStart=/bin/sleep infinity\n"
GRANTED = ("acme.service", "web@1.service", "absent.service", "made.service",
           "linked.service", "open.service", "given.service")  # fmt: skip
AS_UPDATERD = {"user": "updaterd"}


@pytest.fixture(scope="module", params=[("bookworm", 252), ("trixie", 257)],
                ids=["Debian 12", "Debian 13"])  # fmt: skip
def machine(request, debian, tmp_path_factory):
    suite, version = request.param
    root = tmp_path_factory.mktemp(suite) / "root"
    root.mkdir(mode=0o755)
    root.parent.chmod(0o755)
    subprocess.run(["tar", "-C", root, "-xf", debian(suite, PACKAGES)], check=True)
    booted = Booted(root, root.parent / "console")
    try:
        booted.wait_until_up()
        said = booted.must("systemctl", "--version")
        assert said.startswith(f"systemd {version}")
        prepare(booted)
        yield booted
    finally:
        booted.stop()
        shutil.rmtree(root, ignore_errors=True)


def prepare(machine) -> None:
    machine.write("/usr/lib/sysusers.d/u.conf", "u updaterd - - /\n")
    machine.must("systemd-sysusers")
    machine.write("/etc/polkit-1/rules.d/50-updaterd.rules", polkit_rule(GRANTED))
    for name in ("acme.service", "web@.service", "other.service"):
        machine.write(f"/etc/systemd/system/{name}", UNIT)
    machine.write("/etc/systemd/system/open.service", UNIT, 0o666)
    machine.write("/etc/systemd/system/given.service", UNIT)
    machine.write("/opt/acme/linked.service", UNIT)
    machine.must("chown", "-R", "updaterd", "/opt/acme")
    machine.must("chown", "updaterd", "/etc/systemd/system/given.service")
    (machine.root / "etc/systemd/system/linked.service").symlink_to(
        "/opt/acme/linked.service"
    )
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "polkit")
    machine.must("systemd-run", "--unit=made.service", "sleep", "infinity")


def asked(machine, verb, unit):
    words = ("systemctl", "--no-ask-password", verb, unit)
    return machine.run(*words, **AS_UPDATERD)


@pytest.mark.parametrize("unit", ["acme.service", "web@1.service"])
def test_what_is_installed_and_granted_is_restarted(machine, unit):
    for verb, state in (
        ("restart", "active"),
        ("stop", "inactive"),
        ("start", "active"),
        ("reset-failed", "active"),
    ):
        done = asked(machine, verb, unit)
        assert 0 == done.returncode, (verb, done.stderr, machine.journal("-n", "30"))
        assert state == machine.show(unit, "ActiveState")


@pytest.mark.parametrize("unit", ["absent.service", "acme.service", "other.service"])
def test_a_transient_unit_by_a_granted_name(machine, unit):
    """It would run anything as root; systemd 257 asks as for one that is there."""
    done = machine.run(
        "systemd-run", "--no-ask-password", f"--unit={unit}", "touch", "/pwned",
        **AS_UPDATERD,
    )  # fmt: skip
    assert 0 != done.returncode
    assert not (machine.root / "pwned").exists()


@pytest.mark.parametrize("unit", ["made", "linked", "open", "given", "absent", "other"])
def test_a_unit_that_is_not_roots_own_file(machine, unit):
    """Transient, a link into the product's tree, a file that others may write, none."""
    for verb in ("restart", "stop", "start", "reset-failed"):
        done = asked(machine, verb, f"{unit}.service")
        assert 0 != done.returncode, verb
        words = ("uthentication", "not found", "not loaded")
        assert any(word in done.stderr for word in words), done.stderr
    assert "active" == machine.show("made.service", "ActiveState")
    for name in ("linked", "open", "given", "other"):
        assert "inactive" == machine.show(f"{name}.service", "ActiveState")


@pytest.mark.parametrize("verb", ["kill", "freeze", "clean", "mask", "disable"])
def test_no_other_verb(machine, verb):
    assert 0 != asked(machine, verb, "acme.service").returncode
