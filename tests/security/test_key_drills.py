# SPDX-License-Identifier: Apache-2.0
"""The drills of docs/publisher.md, with the commands that it names.

A `prod` repository with encrypted keys and offline roots; a machine that is never
touched: its cache and its bootstrap root stay what they are.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.origin import Origin
from fakes.repository import Client, Publisher

from security.attacks import forged
from updaterd import cli
from updaterd.errors import TransientError
from updaterd.release import workspace
from updaterd.release.keychange.change import authorities

PASS = "correct horse"  # noqa: S105


@pytest.fixture
def ops(tmp_path, monkeypatch):
    """A repository as the manual leaves it: root keys at three other places."""
    monkeypatch.setenv("UPDATERD_PASSPHRASE", PASS)
    made = Publisher(
        tmp_path / "ops",
        profile="prod",
        passphrase=lambda _: PASS.encode(),
        now=datetime.now(UTC),
    )
    made.release("1.0.0")
    for number in (1, 2, 3):
        place = tmp_path / f"place-{number}"
        place.mkdir()
        shutil.move(made.folder / "keys" / f"root-{number}.pem", place)
    reopen(made)
    return made


@pytest.fixture
def machine(tmp_path, ops):
    with Origin(ops.public) as origin:
        made = Client(tmp_path / "trust", ops.bootstrap, origin, demo=False)
        made.now = datetime.now(UTC)
        yield made
        made.close()


def reopen(ops: Publisher):
    ops.space = workspace.Workspace(ops.folder, lambda _: PASS.encode())


def release(ops: Publisher, *words: object, expect: int = 0):
    """Run `updaterd release ...` in this workspace."""
    code = cli.main(["release", *map(str, words), "--repo", str(ops.folder)])
    assert code == expect, words
    reopen(ops)


def sign_at(folder: Path, stick: Path, *numbers: int):
    """Carry the stick to the places of these root keys and sign there."""
    for number in numbers:
        (key,) = (folder / f"place-{number}").glob("*.pem")
        for file in sorted(stick.glob("*.json")):
            words = ["sign", str(file), "--key", str(key), "--yes"]
            assert cli.main(["release", "keys", *words]) == 0


def carry_out(ops: Publisher, tmp_path: Path, *numbers: int):
    """Export, sign at those places, import."""
    stick = tmp_path / "stick"
    release(ops, "keys", "export", stick)
    sign_at(tmp_path, stick, *numbers)
    release(ops, "keys", "import", *sorted(stick.glob("*.json")))
    shutil.rmtree(stick)


def keyid(ops: Publisher, name: str) -> str:
    return ops.space.keyring.entry(name).public.keyid


def signs_nothing(ops: Publisher, key: str):
    assert not any(key in keyids for keyids, _ in authorities(ops.open()).values())


def test_online_key_stolen(ops, machine, tmp_path, capsys):
    """Rotated with two offline roots; the thief's metadata counts no more."""
    assert machine.offered() == "1.0.0"
    stolen = keyid(ops, "online")
    evil = forged(ops, 2**31, tmp_path / "evil")
    machine.origin.misbehave(
        ".", lambda handler: handler.file(evil / handler.path.lstrip("/"))
    )
    assert machine.offered() == "1.0.0"  # and now deaf to us
    machine.origin.behave()
    release(ops, "keys", "rotate", "online")
    assert "waits for signatures" in capsys.readouterr().out
    carry_out(ops, tmp_path, 1, 3)
    signs_nothing(ops, stolen)
    ops.release("1.1.0")
    assert machine.offered() == "1.1.0"
    machine.origin.misbehave(
        ".", lambda handler: handler.file(evil / handler.path.lstrip("/"))
    )
    with pytest.raises(TransientError) as caught:
        machine.offered()
    assert caught.value.code == "metadata_forged"


def test_release_key_stolen(ops, machine, tmp_path):
    """Rotated; what the thief got signed is yanked; machines go on."""
    ops.release("6.6.6", channel=None)  # signed with the stolen key, not offered
    assert machine.offered() == "1.0.0"
    stolen = keyid(ops, "release-acme")
    release(ops, "keys", "rotate", "release-acme")
    carry_out(ops, tmp_path, 2, 3)
    signs_nothing(ops, stolen)
    release(ops, "yank", "--product", "acme", "--version", "6.6.6", "--no-announce")
    ops.release("1.1.0")
    assert machine.offered() == "1.1.0"
    assert machine.refresh().manifest("acme", "1.1.0", "linux-x86_64")


def test_root_key_lost(ops, machine, tmp_path):
    """Replaced with the two that are left; the new one signs the next change."""
    assert machine.offered() == "1.0.0"
    lost = keyid(ops, "root-1")
    shutil.rmtree(tmp_path / "place-1")
    words = ["generate", "root-1", "--folder", str(tmp_path / "place-1")]
    assert cli.main(["release", "keys", *words]) == 0
    public = tmp_path / "place-1" / "root-1.pub.json"
    release(ops, "keys", "rotate", "root-1", "--public", public)
    carry_out(ops, tmp_path, 2, 3)
    signs_nothing(ops, lost)
    assert machine.refresh().roles[0].version == 2
    release(ops, "keys", "renew", "root", "targets")
    carry_out(ops, tmp_path, 1, 2)
    assert machine.refresh().roles[0].version == 3
    assert machine.offered() == "1.0.0"


def test_timestamp_expired_for_a_week(ops, machine):
    """One `refresh` heals every machine; none is touched, none loses anything."""
    assert machine.offered() == "1.0.0"
    ops.now -= timedelta(days=14)
    ops.refresh()
    with pytest.raises(TransientError) as caught:
        machine.offered()
    assert caught.value.code == "metadata_expired"
    release(ops, "refresh", "--no-announce")
    assert machine.offered() == "1.0.0"
    ops.now += timedelta(days=14)
    ops.release("1.1.0")
    assert machine.offered() == "1.1.0"


def test_expired_root_is_healed_by_a_newer_one(ops, machine, tmp_path):
    """A year later: the machine's root is long over, the next one still counts."""
    assert machine.offered() == "1.0.0"
    later = machine.now + timedelta(days=400)
    machine.now = later
    with pytest.raises(TransientError) as caught:
        machine.offered()
    assert caught.value.code == "metadata_expired"
    machine.now = later - timedelta(days=400)
    release(ops, "keys", "renew", "root")
    carry_out(ops, tmp_path, 1, 2)
    assert machine.refresh().roles[0].version == 2
