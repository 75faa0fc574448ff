# SPDX-License-Identifier: Apache-2.0
"""What a newer publisher signs is passed over where it would be misread, not failed."""

import json
from dataclasses import replace

import pytest
from fakes.rig import Rig

from security import attacks


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    assert made.installed == "1.0.0"
    yield made
    made.close()


def signed(rig, **members):
    """Sign the newest manifest with members that this updaterd does not know."""
    document = json.loads(attacks.manifest_of(rig).encode()) | members
    attacks.sign_raw(rig, json.dumps(document, sort_keys=True).encode())


def deployments(rig) -> list[str]:
    done = rig.machine("history", "acme", "--json")
    return [json.loads(line)["state"] for line in done.stdout.splitlines()]


def test_a_release_with_a_member_that_may_be_ignored_installs(rig):
    rig.push("1.1.0")
    signed(rig, zzz=[{"novel": True}] * 1000)
    outcome, _ = rig.update()
    assert ("installed", "1.1.0") == (outcome["result"], outcome["version"])


def test_a_release_that_must_be_understood_is_passed_over(rig):
    rig.push("1.1.0")
    signed(rig, schema=2, must_understand=["zzz"], zzz=[], files=[{"novel": True}])
    before = deployments(rig)

    outcome, told = rig.update("--retry")

    assert ("pending", "not_understood") == (outcome["result"], outcome["code"])
    assert "'zzz'" in outcome["reason"]
    assert "Traceback" not in told
    assert rig.machine.running == "1.0.0"
    assert deployments(rig) == before  # it did not fail, nothing was begun
    status = rig.machine.product_status()
    assert "not_understood" == status["decision"]["code"]
    assert status["last_error"] is None

    rig.heal()
    rig.push("1.2.0")
    outcome, _ = rig.update()
    assert ("installed", "1.2.0") == (outcome["result"], outcome["version"])


def test_below_a_release_that_is_passed_over_the_next_one_counts(rig):
    """In a partial rollout the channel offers both; the older one can be read."""
    rig.push("1.1.0")
    good = attacks.manifest_of(rig)
    repository = rig.publisher.open()
    catalog = attacks.publish.catalog_of(rig.publisher.space, repository, "acme")
    pointer = catalog.pointer("stable")
    rig.push("1.2.0")
    signed(rig, schema=2, must_understand=["zzz"])
    repository = rig.publisher.open()
    catalog = attacks.publish.catalog_of(rig.publisher.space, repository, "acme")
    newest = catalog.pointer("stable")
    catalog.point(replace(newest, releases=(*newest.releases, *pointer.releases)))
    repository.commit()

    outcome, _ = rig.update()

    assert ("installed", good.version) == (outcome["result"], outcome["version"])
    outcome, _ = rig.update()
    assert "not_understood" == outcome["code"]


def test_a_channel_that_must_be_understood_is_passed_over(rig):
    rig.push("1.1.0")
    attacks.point(rig, must_understand=("zzz",))

    outcome, told = rig.update()

    assert ("pending", "not_understood") == (outcome["result"], outcome["code"])
    assert "update updaterd" in json.dumps(outcome) + told
    assert rig.machine.running == "1.0.0"
