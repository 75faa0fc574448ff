# SPDX-License-Identifier: Apache-2.0
"""A thief of the online key hurries: what was paced is not sent to everyone at once.

The real pipeline, on a machine whose cohort comes last; the thief has copies of the
online key and of all that is published, and signs with it what it wants.
"""

import json
import shutil
import time
from dataclasses import replace

import pytest
from fakes.rig import PLATFORM, Rig
from fakes.worker import update, worker
from tuf.api.metadata import Metadata

from security.test_stolen_keys import (
    offer,
    point,
    release,
    run,
    sign_anew,
    thief_of,
)
from updaterd.core import layout
from updaterd.core.pace import Pace, Step
from updaterd.core.rollout import cohort, salt_of
from updaterd.core.stones import Stone
from updaterd.release import paces

DAY = 86400.0
NOW_FOR_ALL = Pace(published_at=1, steps=(Step(1000, 0),))
VERSION, SEQ = "1.1.0", 2


@pytest.fixture(scope="module")
def paced(tmp_path_factory):
    """1.0.0 is installed; 1.1.0 is signed with a pace, and not offered yet."""
    rig = Rig(tmp_path_factory.mktemp("paced"))
    rig.push("1.0.0")
    state = rig.machine.root / "state"
    state.mkdir(parents=True, exist_ok=True)
    ids = (f"machine-{number}" for number in range(10_000))
    salt = salt_of("acme", VERSION, SEQ)
    last = next(name for name in ids if cohort(salt, name) >= 100)
    (state / "machine-id").write_text(last)
    assert "installed" == run(rig)
    rig.push(VERSION, pace=paces.BUILT_IN["staged"], offered=False)
    rig.push("2.0.0", from_seq_min=SEQ, offered=False)
    yield rig
    rig.close()


def everyone_at_once(repository, thief):
    point(repository, thief, releases=(offer(VERSION, SEQ),))


def urgently(repository, thief):
    blast = offer(VERSION, SEQ, salt="x", tags=("staff",))
    point(repository, thief, releases=(replace(blast, urgency="critical"),))


def with_a_pace_of_its_own(repository, thief):
    blast = replace(offer(VERSION, SEQ), pace=NOW_FOR_ALL)
    point(repository, thief, releases=(blast,))


def as_a_stepping_stone(repository, thief):
    """What machines must go over is what the thief wants them to have."""
    beyond = replace(offer("9.9.9", 9), from_seq_min=SEQ)
    stone = Stone(VERSION, SEQ, 0, (PLATFORM,))
    point(repository, thief, releases=(beyond,), stones=(stone,))


def past_the_stone(repository, thief):
    point(repository, thief, releases=(offer("2.0.0", 3),), stones=())


@pytest.mark.parametrize(
    "hurry",
    [
        everyone_at_once,
        urgently,
        with_a_pace_of_its_own,
        as_a_stepping_stone,
    ],
    ids=lambda hurry: hurry.__name__,
)
def test_online_key_stolen_to_send_a_release_at_once(paced, hurry):
    _serve(paced, hurry)
    assert "pending" == run(paced)
    with worker(paced.machine) as services:
        outcome = update(paced.machine, services)
    assert ("paced", "1.0.0") == (outcome.code, paced.machine.running)
    assert outcome.next_attempt_at > time.time() + DAY - 3600


def test_online_key_stolen_to_forge_the_manifest(paced):
    """Without its pace it is another manifest, which no release key signed."""
    thief = _serve(paced, everyone_at_once)
    role = Metadata.from_bytes(
        max(thief.metadata.glob("*.acme.releases.json")).read_bytes()
    )
    target = role.signed.targets[layout.release("acme", VERSION, PLATFORM)]
    for path in thief.public.rglob(f"{target.hashes['sha256']}*"):
        forged = json.loads(path.read_bytes())
        forged.pop("pace")
        path.write_text(json.dumps(forged))
    assert run(paced) not in {"installed", "current"}
    assert "1.0.0" == paced.machine.running


def test_a_clock_that_is_behind_waits_as_long_as_others(paced):
    _serve(paced, everyone_at_once)
    start = time.time()
    assert "pending" == run(paced, clock=lambda: start - 3 * DAY)
    assert "pending" == run(paced, clock=lambda: start + DAY - 3600)


def test_online_key_stolen_to_skip_a_stepping_stone(paced):
    """2.0.0 reads only what 1.1.0 leaves; the pointer says that anybody may have it."""
    _serve(paced, past_the_stone)
    with worker(paced.machine) as services:
        outcome = update(paced.machine, services)
    assert ("no_way", "1.0.0") == (outcome.code, paced.machine.running)


def test_online_key_stolen_to_say_that_it_is_next_year(paced):
    """The timestamp's time is the online key's: no turn goes by it."""
    thief = _serve(paced, everyone_at_once)
    sign_anew(thief, signed="2099-01-01T00:00:00Z")
    assert "installed" != run(paced)
    assert "1.0.0" == paced.machine.running


def test_after_a_rotation_the_turn_comes_by_itself(paced):
    """Whatever the thief signed: the owner's channel and the pace count again."""
    release(paced, "keys", "rotate", "online")
    paced.origin.behave()
    words = ["--product", "acme", "--channel", "stable", "--version", VERSION]
    release(paced, "publish", *words, "--no-announce")
    start = time.time()
    assert "pending" == run(paced)
    assert "installed" == run(paced, clock=lambda: start + DAY + 60)


def _serve(rig, hurry):
    """Publish what the thief signs where the machine looks; return the thief."""
    shutil.rmtree(rig.folder / "thief", ignore_errors=True)
    # each thief signs the same versions: no word of the one before is kept
    shutil.rmtree(rig.machine.root / "state" / "trust", ignore_errors=True)
    thief = thief_of(rig)
    repository = thief.open()
    hurry(repository, thief)
    repository.commit()
    rig.serve_from(thief.public)
    return thief
