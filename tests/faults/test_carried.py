# SPDX-License-Identifier: Apache-2.0
"""A first install from files that were carried here: offline, old, and verified."""

import json
import shutil
import time

import pytest
from fakes.rig import Rig
from fakes.worker import update, worker

from updaterd.errors import TransientError


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.push("1.0.0")
    rig.push("1.1.0")
    yield rig
    rig.close()


@pytest.fixture
def rig(published):
    """A machine on which nothing is installed, and whose repository is away."""
    yield published
    shutil.rmtree(published.machine.root / "state", ignore_errors=True)
    shutil.rmtree(published.machine.root / "cache", ignore_errors=True)
    shutil.rmtree(published.machine.app, ignore_errors=True)
    published.machine.app.mkdir(parents=True)


@pytest.fixture
def carried(rig, tmp_path):
    rig.origin.misbehave(".", lambda handler: handler.send_error(500))
    yield shutil.copytree(rig.publisher.public, tmp_path / "carried")
    rig.origin.behave()


def test_first_install_asks_nobody(rig, carried):
    outcome, told = rig.update("--from", str(carried))

    assert ("installed", "1.1.0") == (outcome["result"], outcome["version"]), told
    assert "1.1.0" == rig.machine.running


def test_what_has_expired_meanwhile_is_installed_as_of_then(rig):
    """A kit lies about for longer than signatures last; nothing else may do that."""
    signed_at = time.time()
    with worker(rig.machine, clock=lambda: signed_at + 400 * 86400) as services:
        with pytest.raises(TransientError):
            update(rig.machine, services)
        assert "installed" == update(rig.machine, services, as_of=signed_at).result


def test_changed_files_are_not_believed(rig, carried):
    for blob in (carried / "blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(blob.read_bytes()[:-1] + b"!")

    outcome, _ = rig.update("--from", str(carried))

    assert outcome["result"] == "error"
    assert rig.machine.running is None


def test_a_time_that_nobody_signed_makes_nothing_newer(rig, carried):
    """Whoever dates it back, so that it has not expired, breaks its signature."""
    path = carried / "metadata/timestamp.json"
    document = json.loads(path.read_bytes())
    document["signed"]["expires"] = "2001-01-01T00:00:00Z"
    document["signed"]["x-updaterd-signed"] = "2000-01-01T00:00:00Z"
    path.write_text(json.dumps(document))

    outcome, _ = rig.update("--from", str(carried))

    assert "error" == outcome["result"]
    assert rig.machine.running is None


def test_what_is_no_repository_is_named(rig, carried, tmp_path):
    done = rig.machine("update", "acme", "--from", tmp_path, expect=1)

    assert "holds no files of a repository" in done.stderr
