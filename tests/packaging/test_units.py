# SPDX-License-Identifier: Apache-2.0
"""The units say what they should, to the systemd that will read them."""

import re
import subprocess
from pathlib import Path

import pytest
from fakes.tools import need

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.iterdir() if path.is_file())
SERVICES = [name for name in UNITS if name.endswith(".service")]


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_at_most_one_and_a_half(name):
    """Comparable services score 9.6; a setting that is lost shows here."""
    tool = need("systemd-analyze", "systemd")
    done = subprocess.run(
        [
            *(tool, "security", "--offline=true", "--no-pager", "--threshold=15"),
            str(SYSTEMD / name),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    overall = done.stdout.strip().splitlines()[-1]
    print(overall)
    assert 0 == done.returncode, done.stdout
    assert float(re.search(r"([\d.]+) \w+", overall.partition(": ")[2])[1]) <= 1.5


@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_each_unit_without_a_word(name, tmp_path):
    """
    `verify` exits 0 on unknown keys, so any output at all fails. The programs it
    starts are stood in for: they need not be installed here.
    """
    tool = need("systemd-analyze", "systemd")
    for path in filter(Path.is_file, SYSTEMD.iterdir()):
        text = path.read_text()
        text = re.sub(r"(?m)^(Exec\w+=-?)/usr/\S+", r"\1/bin/true", text)
        (tmp_path / path.name).write_text(text)
    shown = name.replace("@.", "@acme.")
    done = subprocess.run(
        [tool, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / shown)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("", "") == (done.stdout, done.stderr)


def settings(name):
    lines = (SYSTEMD / name).read_text().splitlines()
    return [line for line in lines if "=" in line and not line.startswith("#")]


def test_instances_are_hardened_like_the_service():
    """The template differs in names alone; each has its guard of self-updates."""
    instance = {line.replace("-%i", "") for line in settings("updaterd@.service")}
    single = {*settings("updaterd.service")}
    assert 3 == sum("/updaterd/guard" in line for line in instance)
    different = {line.partition("=")[0] for line in instance ^ single}
    assert different <= {"Description"}


def test_who_answers_for_an_instance_is_hardened_like_the_first():
    """The template differs in names alone."""
    for name in ("updaterd-api.service", "updaterd-api.socket"):
        template = name.replace("api.", "api@.")
        instance = {re.sub("-%i|@%i", "", line) for line in settings(template)}
        different = {x.partition("=")[0] for x in instance ^ {*settings(name)}}
        assert different <= {"Description"}


def test_the_daemon_never_stays_down():
    """An updater that gave up could not be repaired by an update."""
    unit = settings("updaterd.service")
    assert {"Restart=always", "StartLimitIntervalSec=0", "Type=notify"} <= {*unit}
    assert {"User=updaterd", "OOMPolicy=continue", "KillMode=mixed"} <= {*unit}
    assert any(line.startswith("WatchdogSec=") for line in unit)


@pytest.mark.parametrize("name", ["updaterd.service", "updaterd@.service"])
def test_reload_fails_before_a_broken_configuration_reaches_the_daemon(name):
    """A command that fails ends the reload, and those after it are not run."""
    asked = [line for line in settings(name) if line.startswith("ExecReload=")]
    assert "ExecReload=/usr/bin/updaterd config check --settings" == asked[0]
    assert "kill -HUP" in asked[1]


@pytest.mark.parametrize("name", SERVICES)
def test_no_unit_may_take_all_memory(name):
    """What runs wild is ended in its own group, before the machine is short."""
    assert 1 == sum(line.startswith("MemoryMax=") for line in settings(name))
