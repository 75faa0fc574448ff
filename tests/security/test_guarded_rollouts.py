# SPDX-License-Identifier: Apache-2.0
"""Thieves and liars around a guarded rollout: what each achieves, and no more.

What the threat model says of them is what is tested here, their successes too.
"""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
from fakes.fleet import Fleet
from fakes.trees import make_tree

from updaterd import cli
from updaterd.clocks import wall_clock
from updaterd.core.json_fields import encode
from updaterd.core.plan import Limits, Plan
from updaterd.core.watching import Action, Evidence, judge
from updaterd.release import publish
from updaterd.release.rollouts import audit
from updaterd.release.rollouts.plans import BUILT_IN
from updaterd.release.workspace import Workspace
from updaterd.server.scopes import Holder

pytestmark = pytest.mark.slow

PLAN = {
    "steps": [
        {"permille": 10, "dwell_s": 0, "min_reports": 5},
        {"permille": 1000, "dwell_s": 0, "min_reports": 5},
    ],
    "halt": {"failed_permille": 300, "confidence": 900},
}


@pytest.fixture(scope="module")
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def halted(fleet, tmp_path_factory):
    """A workspace whose 2.0 was halted by what machines reported."""
    root = tmp_path_factory.mktemp("halted")
    folder, plan = root / "ops", root / "plan.json"
    plan.write_text(json.dumps(PLAN))
    (root / "token").write_text("token")
    feed = ("--feed", f"{fleet.address}/v1/events", "--token-file", root / "token")
    subject = ("--product", "acme", "--channel", "stable", "--version")
    fleet.reports("2.0", failed=5)
    for words in (
        ("init", folder, "--profile", "demo", "--product", "acme", "--channel",
         "stable"),
        ("push", make_tree(root / "1", {"bin/app": "1"}), *subject, "1.0"),
        ("push", make_tree(root / "2", {"bin/app": "2"}), *subject, "2.0",
         "--plan", plan),
        ("watch", "--once"),
    ):  # fmt: skip
        more = () if words[0] == "init" else ("--repo", folder, *feed, "--no-compare")
        assert cli.main(["release", *map(str, (*words, *more))]) == 0
    return folder


@pytest.fixture
def ops(halted, tmp_path):
    folder = tmp_path / "ops"
    shutil.copytree(halted, folder)
    return folder


def opened(ops):
    """Return what whoever has the online key, and what is published, can sign with."""
    from datetime import UTC, datetime

    workspace = Workspace(ops)
    now = datetime.fromtimestamp(wall_clock(), UTC)
    repository = publish.open_repository(workspace, now)
    return repository, publish.catalog_of(workspace, repository, "acme")


def unhalt(ops, head=None):
    """Sign, as the thief does, that nothing was ever halted."""
    repository, catalog = opened(ops)
    pointer = catalog.pointer("stable")
    assert pointer.paused
    freed = replace(pointer, paused=False, reason="", plan=None)
    catalog.point(freed)
    if head is not None:
        with repository.edit("acme.stable") as role:
            role.unrecognized_fields[audit.FIELD] = head(freed)
    repository.commit()


def verify(ops, capsys):
    code = cli.main(["release", "audit", "--verify", "--repo", str(ops)])
    return code, "".join(capsys.readouterr())


def test_a_thief_of_the_online_key_who_unhalts_stands_in_no_line(ops, capsys):
    """Machines obey the key, within the release's pace; the publisher sees it."""
    assert verify(ops, capsys)[0] == 0
    unhalt(ops)
    code, said = verify(ops, capsys)
    assert code != 0
    assert "says what no line tells of" in said


def test_a_thief_of_the_online_key_who_forges_the_plan_stands_in_no_line(ops, capsys):
    """Watch judges by limits that allow all; the release's pace is what is left."""
    repository, catalog = opened(ops)
    pointer = catalog.pointer("stable")
    lax = Limits(failed_permille=999, confidence=999)
    plan = replace(pointer.plan, state="running", halt=lax, reason="")
    catalog.point(replace(pointer, paused=False, reason="", plan=plan))
    repository.commit()
    code, said = verify(ops, capsys)
    assert code != 0
    assert "says what no line tells of" in said
    evidence = Evidence(well=10, failed=90)
    assert judge(plan, evidence, now=wall_clock() + 60).action is Action.STEP


def test_a_thief_of_the_online_key_alone_cannot_make_a_line(ops, capsys):
    """The log is not published: of a line that is only claimed there is none."""
    unhalt(ops, head=lambda _: {"log": "0" * 64, "count": 5, "hash": "0" * 64})
    code, said = verify(ops, capsys)
    assert code != 0
    assert "another log" in said


def test_who_can_write_the_log_cannot_take_a_halt_out_of_it(ops, capsys):
    log = ops / audit.FILE
    *rest, halt = log.read_bytes().splitlines(keepends=True)
    assert b'"act":"halt"' in halt
    milder = json.loads(halt) | {"why": "a whim", "who": "anna"}
    log.write_bytes(b"".join([*rest, encode(milder)]))
    assert verify(ops, capsys)[0] != 0
    log.write_bytes(b"".join(rest))
    assert verify(ops, capsys)[0] != 0


def test_who_has_key_and_log_convinces_verify_but_not_copies_elsewhere(ops, capsys):
    """Both stolen, nothing here can tell; what webhooks sent has another hash."""
    log = ops / audit.FILE
    raw = log.read_bytes()
    *rest, halt = raw.splitlines(keepends=True)
    previous = hashlib.sha256(rest[-1]).hexdigest()
    first = hashlib.sha256(rest[0]).hexdigest()
    lines = []

    def head(freed):
        forged = json.loads(halt) | {
            "act": "resume", "who": "anna", "paused": False, "previous": previous,
            "pointer": hashlib.sha256(encode(freed.as_custom())).hexdigest(),
        }  # fmt: skip
        lines.append(encode(forged))
        digest = hashlib.sha256(lines[0]).hexdigest()
        return {"log": first, "count": len(rest) + 1, "hash": digest}

    unhalt(ops, head)
    log.write_bytes(b"".join([*rest, *lines]))
    assert verify(ops, capsys)[0] == 0
    assert lines[0] != halt, "a receiver that kept the line sees two of one number"


def test_a_thief_of_the_fleets_read_token_only_reads():
    thief = Holder(id="t", name="", scopes=("fleet:read",), created=0)
    assert thief.may("fleet:read")
    assert not thief.may("operate")
    assert not thief.may("read")
    assert not thief.may_publish(None, None)
    assert not thief.may_publish("acme", "stable")
    assert not thief.may_report("acme")


GUARDED = Plan(version="2.0", steps=BUILT_IN["guarded"], halt=Limits(), since=0)
LATER = 400 * 86400.0


def test_a_liar_fleet_halts_a_good_release_and_does_nothing_else():
    """One of a hundred machines, all at once, in turn or not: a delay, and seen."""
    lies = Evidence(well=900, failed=1000, reached=1000)
    verdict = judge(GUARDED, lies, now=LATER)
    assert verdict.action is Action.HALT
    assert "failed on 1000 of 1900 machines" in verdict.reason


def test_a_liar_fleet_cannot_praise_a_bad_release_past_its_step():
    for praise in (0, 1000, 100_000, 10_000_000):
        for failed in (50, 500, 950):
            evidence = Evidence(well=praise, failed=failed, reached=1000)
            verdict = judge(GUARDED, evidence, now=LATER)
            assert verdict.action in {Action.HALT, Action.HOLD}, (praise, failed)


def test_a_liar_fleet_that_blames_the_old_release_lifts_the_limit_to_twice_at_most():
    worst = Evidence(well=900, failed=100, base_version="1.0", base_failed=10**6)
    assert judge(GUARDED, worst, now=LATER).action is Action.HALT


def test_a_liar_fleet_that_invents_machines_which_never_report_only_delays():
    """Silence is a share of those that told about the release beneath, and holds."""
    well = Evidence(well=1000, reached=1000, base_version="1.0", base_well=100_000)
    assert judge(GUARDED, well, now=LATER).action is Action.STEP
    invented = replace(well, reached=5000, base_well=500_000)
    verdict = judge(GUARDED, invented, now=LATER)
    assert (verdict.action, verdict.code) == (Action.HOLD, "rollout_quiet")


def test_a_liar_fleet_that_speaks_for_dead_machines_takes_that_hold_away():
    """Stated in the threat model: only what fails aloud halts, whatever is said."""
    dead = Evidence(well=200, reached=1000, base_version="1.0", base_well=100_000)
    assert judge(GUARDED, dead, now=LATER).code == "rollout_quiet"
    praised = replace(dead, well=600)
    assert judge(GUARDED, praised, now=LATER).action is Action.STEP
