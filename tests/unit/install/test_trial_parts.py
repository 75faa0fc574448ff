# SPDX-License-Identifier: Apache-2.0
"""Health, hooks and units: what is configured must hold, and says what does not."""

import pkgutil
import sys

import pytest
from fakes.worker import Units

from updaterd.core import codes
from updaterd.core.settings import Health, Hooks, Product
from updaterd.errors import TransientError
from updaterd.files import ownership
from updaterd.install import checks, health, hooks
from updaterd.install.restart_systemd import RefusedError, RestartError, Systemd

OWNERS = ownership.owners()


class Address:
    """Answers when it was asked often enough."""

    def __init__(self, after: int):
        self._left = after

    def get(self, url, *, limit, deadline_s):
        self._left -= 1
        if self._left > 0:
            raise TransientError(f"connection refused by {url} within {deadline_s > 0}")
        return b"ok"[:limit]


def fault(found: Health, units=(), *, manager=None, getter=None):
    return health.fault(
        found, units, manager=manager or Units(), getter=getter, env={}, trusted=OWNERS
    )


def test_each_kind_of_check_is_declared_once_and_has_a_module():
    modules = {module.name for module in pkgutil.iter_modules(checks.__path__)}
    assert set(Health.kinds()) == modules - {"kind"} == set(checks.KINDS)


def test_nothing_configured_is_well():
    assert "" == fault(Health())


def test_command_decides_and_its_last_words_are_the_reason():
    argv = (sys.executable, "-I", "-c", "print('port 80 is closed'); exit(2)")

    said = fault(Health(command=argv, timeout_s=0.5))

    assert "health command: exit code 2: port 80 is closed" == said


def test_units_that_fall_are_the_verdict_before_any_command(tmp_path):
    (tmp_path / "releases" / "2").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/2")
    units = Units(faults={"2": "acme.service is failed"}, app=tmp_path)

    said = fault(Health(command=("/bin/false",)), ("acme.service",), manager=units)

    assert "acme.service is failed" == said


def test_address_may_need_a_few_moments():
    found = Health(url="http://127.0.0.1:1/health", timeout_s=30)
    assert "" == fault(found, getter=Address(after=2))


def test_service_that_listens_late_is_well(tmp_path):
    """A command that fails at first is asked again, as an address is."""
    late = f"test -e {tmp_path}/up || {{ touch {tmp_path}/up; exit 1; }}"

    found = Health(command=("/bin/sh", "-c", late), timeout_s=30, every_s=0.05)

    assert "" == fault(found)


def test_one_good_answer_is_not_enough_where_it_must_last(tmp_path):
    """Well once, then ill for good: `stable_s` sees the second."""
    once = f"test -e {tmp_path}/asked && exit 1; touch {tmp_path}/asked"
    argv = ("/bin/sh", "-c", once)

    said = fault(Health(command=argv, timeout_s=0.5, every_s=0.05, stable_s=0.2))

    assert said.startswith("health command: exit code 1")


def systemd(tmp_path, show="", lines="", code=1) -> Systemd:
    """Return a service manager whose systemctl says this."""
    script = tmp_path / "systemctl"
    script.write_text(
        f"#!/bin/sh\ncase $* in *show*) echo '{show}'; exit 0;; esac\n"
        f"printf '{lines}' >&2; exit {code}\n"
    )
    script.chmod(0o755)
    return Systemd((str(script),))


@pytest.mark.parametrize(
    ("lines", "cure"),
    [
        (
            "Failed to restart a.service: Interactive authentication required.\\n",
            "updaterd config grant --write",
        ),
        ("Failed to restart a.service: Unit a.service not found.\\n", "units"),
        ("Failed to connect to bus: No such file or directory\\n", "systemctl status"),
    ],
)
def test_refused_restart_is_the_machines_fault(tmp_path, lines, cure):
    """It has all of the last lines, and the cure; it blocks no release."""
    with pytest.raises(RefusedError) as caught:
        systemd(tmp_path, lines=lines).restart(["a.service"])

    assert lines.split("\\n")[0] in caught.value.cause
    assert cure in caught.value.do
    assert not codes.blocks(caught.value.code)


def test_unit_that_does_not_come_up_is_the_releases_fault(tmp_path):
    lines = "Job for a.service failed because the control process exited.\\n"

    with pytest.raises(RestartError) as caught:
        systemd(tmp_path, lines=lines).restart(["a.service"])

    assert codes.blocks(caught.value.code)


@pytest.mark.parametrize("state", ["not-found", "masked", "bad-setting"])
def test_unit_that_systemd_does_not_have_is_seen_before_anything_moves(tmp_path, state):
    with pytest.raises(RefusedError, match=f"a.service .* {state}"):
        systemd(tmp_path, show=f"LoadState={state}").check(["a.service"])


def test_address_that_never_answers_is_the_verdict():
    found = Health(url="http://127.0.0.1:1/health", timeout_s=0.2)

    said = fault(found, getter=Address(after=10**9))

    assert "health address http://127.0.0.1:1/health: connection refused" in said


def product(**configured) -> Product:
    from pathlib import PurePath

    return Product(name="acme", root=PurePath("/opt/acme"), hooks=Hooks(**configured))


def test_hook_gets_the_documented_environment():
    code = (
        "import os, sys; want = {'UPDATERD_HOOK': 'pre_stage',"
        "'UPDATERD_PRODUCT': 'acme', 'UPDATERD_VERSION': '2',"
        "'UPDATERD_FROM_VERSION': '1', 'UPDATERD_ROOT': '/opt/acme',"
        "'UPDATERD_RELEASE': '/opt/acme/releases/2', 'UPDATERD_TRIGGER': 'event'};"
        "sys.exit(any(os.environ.get(k) != v for k, v in want.items()))"
    )
    found = product(pre_stage=(sys.executable, "-I", "-c", code))
    env = hooks.environment(found, version="2", from_version="1", trigger="event")

    hooks.run_hook("pre_stage", found, env, trusted=OWNERS)


def test_hook_that_says_no_is_named_and_may_be_tried_later():
    found = product(pre_activate=("/bin/sh", "-c", "echo busy now; exit 7"))

    with pytest.raises(TransientError, match="pre_activate of acme: exit code 7: busy"):
        hooks.run_hook("pre_activate", found, {}, trusted=OWNERS)


def test_hook_that_is_not_configured_is_nothing():
    hooks.run_hook("post_rollback", product(), {}, trusted=OWNERS)


@pytest.fixture
def systemctl(tmp_path):
    """A systemctl that logs what it is asked and says what a test wrote."""
    log, answers = tmp_path / "log", tmp_path / "answers"
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {log}\n. {answers}\n')
    tool.chmod(0o755)
    answers.write_text("exit 0\n")
    return tool, log, answers


def test_units_are_restarted_in_one_call(systemctl):
    tool, log, _ = systemctl
    Systemd((str(tool),)).restart(["a.service", "b.service"])

    assert log.read_text().endswith("restart -- a.service b.service\n")


def test_starts_are_counted_anew_for_each_release(systemctl):
    """A release that crashed until systemd gave up must not cost the next its start."""
    tool, log, _ = systemctl

    Systemd((str(tool),)).restart(["a.service"])

    assert ["reset-failed", "restart"] == [
        line.split()[-3] for line in log.read_text().splitlines()
    ]


def test_reset_that_is_not_allowed_stops_no_restart(systemctl):
    """A polkit rule from before does not know it; a unit never started has none."""
    tool, log, answers = systemctl
    answers.write_text("case $* in *reset-failed*) echo denied; exit 1; esac\n")

    Systemd((str(tool),)).restart(["a.service"])

    assert log.read_text().endswith("restart -- a.service\n")


def test_restart_that_fails_says_what_systemd_said(systemctl):
    tool, _, answers = systemctl
    answers.write_text("echo 'Job for a.service failed'; exit 1\n")

    with pytest.raises(RestartError, match=r"Job for a\.service failed"):
        Systemd((str(tool),)).restart(["a.service"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("ActiveState=active\nNRestarts=0", ""),
        ("ActiveState=failed\nNRestarts=0", "a.service is failed"),
        ("", "a.service is unknown"),
    ],
)
def test_unit_must_be_active(systemctl, answer, said):
    tool, _, answers = systemctl
    answers.write_text(f"printf '{answer}'\n".replace("\n=", "="))
    answers.write_text("printf '" + answer.replace("\n", "\\n") + "\\n'\n")

    assert said == Systemd((str(tool),)).fault(["a.service"], active_s=0)


def test_unit_that_systemd_restarts_has_fallen(systemctl):
    """Active at every look, and yet it crashed in between."""
    tool, log, answers = systemctl
    answers.write_text(
        f"echo ActiveState=active; echo NRestarts=$(grep -c show {log})\n"
    )

    said = Systemd((str(tool),)).fault(["a.service"], active_s=0)

    assert "a.service fell and was restarted by systemd" == said


def test_no_units_ask_systemd_nothing(systemctl):
    tool, log, _ = systemctl
    Systemd((str(tool),)).restart([])

    assert not log.exists()


class Falling(Units):
    """Units whose states a test wrote, one look after the other."""

    def __init__(self, *looks):
        super().__init__()
        self.looks = list(looks)

    def states(self, units):
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return dict.fromkeys(units, found)


UP, AGAIN, DOWN = ("active", "0"), ("active", "1"), ("activating", "1")


def test_unit_that_dies_while_all_must_be_well_is_the_fault(tmp_path):
    """The command is well all the time: it asks something else."""
    found = Health(command=("/bin/true",), timeout_s=0.5, every_s=0.05, stable_s=0.3)

    said = fault(found, ("acme.service",), manager=Falling(UP, UP, DOWN))

    assert "acme.service is activating" == said


def test_unit_that_fell_between_two_looks_begins_the_time_anew():
    """And is well in the end: a failure must last too."""
    found = Health(command=("/bin/true",), timeout_s=30, every_s=0.05, stable_s=0.2)
    manager = Falling(UP, UP, AGAIN, AGAIN)

    assert "" == fault(found, ("acme.service",), manager=manager)
    assert 1 == len(manager.looks)


def test_unit_that_systemd_gave_up_is_not_asked_to_the_end():
    """Two minutes of a dead application are two minutes too many."""
    manager = Falling(UP, ("failed", "3"))
    found = Health(command=("/bin/false",), timeout_s=3600, every_s=0.05)

    said = fault(found, ("acme.service",), manager=manager)

    assert said == "acme.service is failed; health command: exit code 1"


def test_units_alone_must_be_well_for_as_long_as_is_asked():
    found = Health(timeout_s=0.5, every_s=0.05, stable_s=0.2)

    assert "acme.service is activating" == fault(
        found, ("acme.service",), manager=Falling(UP, UP, DOWN)
    )
