# SPDX-License-Identifier: Apache-2.0
"""Changes of keys: signed where the keys are, published whole or not at all."""

import shutil

import pytest
from fakes.disk import Dying

from updaterd import cli, durable
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.release import workspace
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import delegation, edits, offline
from updaterd.release.repository.signing import MissingKeysError
from updaterd.release.upkeep import expiry, verification

pytestmark = pytest.mark.slow


def rotate(publisher, name):
    ring = publisher.space.keyring
    old = ring.retire(name)
    change = edits.replace_key(old.public, ring.ensure(name).public)
    return keychange.propose(publisher.space, publisher.open(), change)


def away(publisher, tmp_path, *names):
    """Carry key files to an offline place; the keyring only knows their public half."""
    place = tmp_path / "safe"
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.move(publisher.folder / "keys" / f"{name}.pem", place)
    publisher.space = workspace.Workspace(publisher.folder)
    return place


@pytest.mark.parametrize("name", ["online", "release-acme", "root-1"])
def test_a_replaced_key_is_followed_without_touching_a_machine(publisher, client, name):
    """After a rotation machines go on, and the old key signs nothing any more."""
    assert client.offered() == "1.0.0"
    old = publisher.space.keyring.entry(name).public.keyid
    assert rotate(publisher, name) == []
    publisher.release("1.1.0")
    assert client.offered() == "1.1.0"
    signing = keychange.authorities(publisher.open())
    assert not any(old in keyids for keyids, _ in signing.values())
    assert verification.verify(publisher.space, publisher.open(), deep=False) == [
        line
        for line in verification.verify(publisher.space, publisher.open(), deep=False)
        if "blobs" in line  # the fake releases have none
    ]


def test_a_root_that_is_kept_offline_signs_in_two_places(publisher, client, tmp_path):
    """Export, sign with two keys elsewhere, import: published only then."""
    client.offered()
    safe = away(publisher, tmp_path, "root-1", "root-2", "root-3")
    left = rotate(publisher, "online")
    assert {each.role for each in left} == {"root", "targets"}
    assert client.refresh().roles[0].version == 1
    publisher.release("1.1.0")  # the old online key still works meanwhile
    paths = keychange.export(publisher.space, tmp_path / "stick")
    for path in paths:
        offline.sign(path, safe / "root-3.pem", lambda _: b"")
    left = keychange.take_in(publisher.space, publisher.open(), paths)
    assert "1 of 2" in left[0].missing
    for path in paths:
        offline.sign(path, safe / "root-1.pem", lambda _: b"")
    assert keychange.take_in(publisher.space, publisher.open(), paths) == []
    assert client.refresh().roles[0].version == 2
    assert client.offered() == "1.1.0"
    assert not list((publisher.folder / "pending").glob("*.json"))


def test_a_file_that_is_not_the_exported_one_is_refused(publisher, tmp_path):
    """Signatures on anything else do not count for the waiting change."""
    away(publisher, tmp_path, "root-1", "root-2")
    rotate(publisher, "root-1")
    path = tmp_path / "other.json"
    shutil.copy(publisher.metadata / "1.root.json", path)
    with pytest.raises(RejectedError) as caught:
        keychange.take_in(publisher.space, publisher.open(), [path])
    assert caught.value.code == "other_file"


def test_only_one_change_waits_at_a_time(publisher, tmp_path):
    """A second one would be outdated by the first; cancelling makes room."""
    away(publisher, tmp_path, "root-1", "root-2")
    rotate(publisher, "online")
    with pytest.raises(BrokenError) as caught:
        rotate(publisher, "release-acme")
    assert caught.value.code == "change_pending"
    keychange.cancel(publisher.space)
    assert keychange.waiting(publisher.space) == []


def test_a_dropped_change_does_not_shield_the_key_it_was_about(publisher, tmp_path):
    """After rotate and cancel, rotating again still replaces the key in use."""
    from updaterd import cli

    def keys(*words):
        return cli.main(["release", "keys", *words, "--repo", str(publisher.folder)])

    stolen = publisher.space.keyring.entry("online").public.keyid
    safe = away(publisher, tmp_path, "root-1", "root-2")
    assert keys("rotate", "online") == 0
    assert keys("rotate", "online") == 1
    assert keys("cancel") == 0
    for path in safe.iterdir():
        shutil.move(path, publisher.folder / "keys")
    assert keys("rotate", "online") == 0
    publisher.space = workspace.Workspace(publisher.folder)
    signing = keychange.authorities(publisher.open())
    assert not any(stolen in keyids for keyids, _ in signing.values())
    publisher.release("1.1.0")


@pytest.mark.parametrize(
    "words",
    [
        ("add", "acme.nightly", "--name", "x"),
        ("revoke", "acme.stable", "--name", "root-1"),
        ("revoke", "acme.stable", "--name", "nobody"),
        ("rotate", "nobody"),
        ("import", "/nonexistent"),
        ("export", "nowhere"),
        ("add-channel", "acme", "releases"),
        ("add-product", "No Name"),
    ],
)
def test_a_mistake_is_a_sentence_not_a_traceback(publisher, words, capsys):
    """Roles, keys and files that are not there: told, and nothing changes."""
    from updaterd import cli

    before = (publisher.metadata / "timestamp.json").read_bytes()
    assert cli.main(["release", "keys", *words, "--repo", str(publisher.folder)]) == 1
    assert "updaterd: " in capsys.readouterr().err
    assert (publisher.metadata / "timestamp.json").read_bytes() == before


def test_a_role_is_never_left_without_enough_keys(publisher):
    """Revoking below the threshold is refused before anything is signed."""
    ring = publisher.space.keyring
    keyid = ring.entry("online").public.keyid
    with pytest.raises(BrokenError) as caught:
        keychange.propose(
            publisher.space,
            publisher.open(),
            edits.revoke_key("timestamp", keyid, None),
        )
    assert caught.value.code == "too_few_keys"


def test_a_second_key_with_a_threshold_of_two_is_really_needed(
    publisher, client, tmp_path
):
    """With two of two for releases, one key alone publishes none."""
    ring = publisher.space.keyring
    second = ring.ensure("release-acme-2").public
    change = edits.add_key("acme.releases", second, 2)
    assert keychange.propose(publisher.space, publisher.open(), change) == []
    publisher.release("1.1.0")
    assert client.offered() == "1.1.0"
    away(publisher, tmp_path, "release-acme-2")
    with pytest.raises(BrokenError) as caught:
        publisher.release("1.2.0")
    assert caught.value.code == "missing_keys"
    assert client.offered() == "1.1.0"


def test_a_new_product_needs_only_the_delegation_signed(publisher, client):
    """Root stays as it is; the new product's roles are there and empty."""
    change = delegation.product_changes(publisher.space, "beta", ["stable", "edge"])
    assert keychange.propose(publisher.space, publisher.open(), change) == []
    assert publisher.open().root.version == 1
    publisher.release("0.1", product="beta", channel="edge")
    offers = client.refresh().channel("beta", "edge").releases
    assert offers[0].version == "0.1"
    with pytest.raises(TransientError):
        client.refresh().channel("beta", "stable")


def test_a_channel_cannot_take_the_name_of_another_role(publisher):
    """`releases` would be the role of the release key."""
    with pytest.raises(BrokenError):
        delegation.channel_changes(publisher.space, "acme", "releases")


def test_a_change_that_dies_while_it_is_published_is_finished(
    publisher, client, tmp_path, monkeypatch
):
    """Dying before each written file: machines are never cut off for longer than to
    the next `refresh`, and the same import goes on without new signatures."""
    safe = away(publisher, tmp_path, "root-1", "root-2", "root-3")
    for step in range(50):
        rotate(publisher, "online")
        paths = keychange.export(publisher.space, tmp_path / "stick")
        for path in paths:
            for name in ("root-1.pem", "root-2.pem"):
                offline.sign(path, safe / name, lambda _: b"")
        dying = Dying(step)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "write_file", dying)
            try:
                keychange.take_in(publisher.space, publisher.open(), paths)
            except OSError:
                pass
            else:
                assert step == 9, "3 kept, targets, 2 channels, snapshot, root, stamp"
                break
        expiry.refresh(publisher.space, publisher.open(), publisher.now)
        assert client.offered() == "1.0.0"
        assert keychange.take_in(publisher.space, publisher.open(), paths) == []
        assert client.offered() == "1.0.0"
        found = verification.verify(publisher.space, publisher.open(), deep=False)
        assert [line for line in found if "blobs" not in line] == []
    else:
        pytest.fail("never completed")


def test_a_root_whose_targets_are_missing_is_never_built_upon(
    publisher, client, tmp_path, monkeypatch
):
    """Dying right after the root, when only old keys signed the targets before it:
    refresh says that it cannot mend this, and the same import does."""
    assert client.offered() == "1.0.0"
    safe = away(publisher, tmp_path, "root-1", "root-2", "root-3")
    rotate(publisher, "root-1")
    [new] = (publisher.folder / "keys").glob("root-1*.pem")
    away(publisher, tmp_path / "new", new.stem)
    paths = keychange.export(publisher.space, tmp_path / "stick")
    for path in paths:
        for name in ("root-2.pem", "root-3.pem"):
            offline.sign(path, safe / name, lambda _: b"")
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_file", Dying(6))
        with pytest.raises(OSError, match="gone"):
            keychange.take_in(publisher.space, publisher.open(), paths)
    assert (publisher.metadata / "2.root.json").exists()
    with pytest.raises(MissingKeysError, match="targets needs 2 signatures"):
        expiry.refresh(publisher.space, publisher.open(), publisher.now)
    assert keychange.take_in(publisher.space, publisher.open(), paths) == []
    expiry.refresh(publisher.space, publisher.open(), publisher.now)
    assert client.offered() == "1.0.0"


@pytest.mark.parametrize("reason", ["cancelled", "no such file"])
def test_a_change_that_came_to_nothing_leaves_keys_their_names(
    publisher, tmp_path, reason
):
    """The key in use is called what it was called, and can be rotated by that."""
    repo = ["--repo", str(publisher.folder)]

    def keys(*words):
        return cli.main(["release", "keys", *words, *repo])

    before = publisher.space.keyring.entry("online")
    safe = away(publisher, tmp_path, "root-1", "root-2")
    if reason == "cancelled":
        assert keys("rotate", "online") == 0
        assert keys("cancel") == 0
        ring = workspace.Workspace(publisher.folder).keyring
        assert ring.entry("online") == before
        assert not any("online-old" in entry.name for entry in ring)
    else:
        assert keys("rotate", "online", "--public", "/nonexistent") == 1
    for path in safe.iterdir():
        shutil.move(path, publisher.folder / "keys")
    assert keys("rotate", "online") == 0
    publisher.space = workspace.Workspace(publisher.folder)
    signing = keychange.authorities(publisher.open())
    assert not any(before.public.keyid in keyids for keyids, _ in signing.values())
    publisher.release("1.1.0")


def test_a_key_without_a_say_is_told_and_signs_nothing(publisher, tmp_path):
    """Where it is kept, not when everybody has gone home; old and new root keys may."""
    safe = away(publisher, tmp_path, "root-1", "root-2")
    old = publisher.space.keyring.entry("root-1").public
    rotate(publisher, "root-1")
    root, targets = sorted(keychange.export(publisher.space, tmp_path / "stick"))
    assert old.keyid not in offline.read(root).signed.roles["root"].keyids
    before = targets.read_bytes()
    for path, key in (
        (root, publisher.folder / "keys" / "online.pem"),
        (targets, safe / "root-1.pem"),
    ):
        with pytest.raises(BrokenError) as caught:
            offline.sign(path, key, lambda _: b"")
        assert caught.value.code == "no_say"
    assert targets.read_bytes() == before
    offline.sign(root, safe / "root-1.pem", lambda _: b"")
    offline.sign(targets, safe / "root-2.pem", lambda _: b"")


def test_half_a_proposal_is_no_change_that_waits(publisher, tmp_path, monkeypatch):
    """Dying before the note is written: the same command makes it again."""
    away(publisher, tmp_path, "root-1", "root-2")
    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_file", Dying(4))
        with pytest.raises(OSError, match="gone"):
            rotate(publisher, "online")
    assert list((publisher.folder / "pending").glob("*.json"))
    assert keychange.waiting(publisher.space) == []
    keychange.check_none_pending(publisher.space)


@pytest.mark.parametrize("answer", ["no", "", EOFError()])
def test_who_does_not_say_yes_signs_nothing(
    publisher, tmp_path, monkeypatch, capsys, answer
):
    """Ctrl-D too; the file is as it was."""

    def said():
        if isinstance(answer, EOFError):
            raise answer
        return answer

    safe = away(publisher, tmp_path, "root-1", "root-2")
    rotate(publisher, "online")
    path, _ = keychange.export(publisher.space, tmp_path / "stick")
    before = path.read_bytes()
    monkeypatch.setattr("builtins.input", said)
    monkeypatch.setattr("sys.stdin", _Terminal())
    key = str(safe / "root-1.pem")
    assert cli.main(["release", "keys", "sign", str(path), "--key", key]) == 1
    assert "not signed" in capsys.readouterr().err
    assert path.read_bytes() == before


class _Terminal:
    """A person is there."""

    def isatty(self) -> bool:
        return True
