# SPDX-License-Identifier: Apache-2.0
"""What TUF's public conformance suite asks of a client, asked of our hook in our words.

The suite itself needs a checkout (README.md); this keeps its subjects covered in every
run: initialisation, updates, expiry, rollback, thresholds, key types, root rotation,
recovery from fast-forward, delegations, names, artifacts.
"""

import json
from datetime import timedelta
from urllib.parse import unquote

import pytest
from fakes.origin import Origin, body
from fakes.tuf_repository import GENERATE, Driver, TufRepository
from tuf.api.metadata import MetaFile

from updaterd.errors import UpdaterError

TOP = ("root", "timestamp", "snapshot", "targets")


@pytest.fixture
def repository(tmp_path):
    return TufRepository(tmp_path / "repository")


@pytest.fixture
def driver(tmp_path, repository):
    with Origin(repository.folder) as origin:
        yield Driver(tmp_path / "client", repository, origin)


def refused(driver: Driver, *codes: str):
    with pytest.raises(UpdaterError) as caught:
        driver.refresh()
    assert not codes or caught.value.code in codes, caught.value.code


def test_the_first_refresh_asks_for_four_files_and_keeps_their_bytes(
    driver, repository
):
    """In the specification's order; on disk is what was served, byte for byte."""
    driver.refresh()
    assert driver.origin.requests == [
        f"/metadata/{name}.json"
        for name in ("2.root", "timestamp", "1.snapshot", "1.targets")
    ]
    for role in TOP:
        name = role if role == "timestamp" else f"1.{role}"
        served = repository.folder / "metadata" / f"{name}.json"
        assert driver.cached(role) == served.read_bytes()


@pytest.mark.parametrize("damage", ["no_version", "no_signature", "wrong_signature"])
def test_a_bad_first_root_is_refused_before_anything_is_asked(driver, damage):
    """Nobody is asked on the word of a root that does not hold."""
    root = json.loads(driver.bootstrap)
    if damage == "no_version":
        del root["signed"]["version"]
    elif damage == "no_signature":
        root["signatures"] = []
    else:
        root["signatures"][0]["sig"] = "00" * 64
    driver.bootstrap = json.dumps(root).encode()
    refused(driver)
    assert driver.origin.requests == []


def test_a_download_refreshes_by_itself_and_fails_for_what_nobody_signed(driver):
    with pytest.raises(UpdaterError):
        driver.download("nonexistent artifact")
    assert [driver.version(role) for role in TOP] == [1, 1, 1, 1]


def test_a_timestamp_changed_under_its_version_is_not_taken(driver, repository):
    driver.refresh()
    before = driver.cached("timestamp")
    repository.timestamp.snapshot_meta.version = 100
    repository.publish("timestamp", bump=False)
    driver.refresh()
    assert driver.cached("timestamp") == before


def test_fields_nobody_knows_are_part_of_what_is_signed(driver, repository):
    driver.refresh()
    repository.root.unrecognized_fields["custom"] = {"a": [1, "ü", None]}
    repository.root.roles["root"].unrecognized_fields["more"] = "x"
    repository.update_root()
    driver.refresh()
    assert driver.version("root") == 2


@pytest.mark.parametrize("role", TOP)
def test_each_role_expires(driver, repository, role):
    """The old ones stay as they were kept, and a new edition heals."""
    driver.refresh()
    signed = repository.role(role)
    signed.expires = repository.now - timedelta(days=1)
    if role == "root":
        repository.update_root()
    elif role == "timestamp":
        repository.publish("timestamp")
    else:
        repository.update(*({role} - {"snapshot"}))
    refused(driver, "metadata_expired")
    signed.expires = repository.now + timedelta(days=9)
    if role == "root":
        repository.update_root()
    else:
        repository.update(*({role} & {"targets"}))
    driver.refresh()


def test_time_passes_and_cached_metadata_expires(driver, repository):
    driver.refresh()
    driver.now = repository.now + timedelta(days=31)
    refused(driver, "metadata_expired")


def test_rollback_of_the_timestamp(driver, repository):
    repository.update()
    driver.refresh()
    repository.timestamp.version = 1
    repository.publish("timestamp", bump=False)
    refused(driver, "stale_mirror")
    assert driver.version("timestamp") == 2


def test_rollback_of_the_snapshot(driver, repository):
    repository.update()
    driver.refresh()
    repository.timestamp.snapshot_meta.version = 1
    repository.publish("timestamp")
    refused(driver, "stale_mirror", "metadata_rollback")
    assert driver.version("snapshot") == 2


def test_rollback_of_targets(driver, repository):
    repository.update("targets")
    driver.refresh()
    repository.snapshot.meta["targets.json"] = MetaFile(1)
    repository.update()
    refused(driver, "metadata_rollback")
    assert driver.version("targets") == 2


def test_a_role_dropped_from_the_snapshot(driver, repository):
    repository.delegate("extra", ["x/*"])
    repository.update("targets", "extra")
    driver.refresh()
    del repository.snapshot.meta["extra.json"]
    repository.update()
    refused(driver)


def test_targets_of_another_version_than_the_snapshot_says(driver, repository):
    driver.refresh()
    repository.update("targets")
    wrong = repository.folder / "metadata" / "2.targets.json"
    wrong.write_bytes((repository.folder / "metadata" / "1.targets.json").read_bytes())
    refused(driver, "metadata_mixed")
    assert driver.version("targets") == 1


def test_targets_of_another_hash_or_length_than_the_snapshot_says(driver, repository):
    driver.refresh()
    repository.targets.version = 2
    repository.snapshot.meta["targets.json"] = MetaFile(2, 10_000, {"sha256": "0" * 64})
    repository.publish("targets", bump=False)
    repository.update()
    refused(driver, "metadata_mixed")
    assert driver.version("targets") == 1


@pytest.mark.parametrize("keytype", GENERATE)
def test_key_types(tmp_path, keytype):
    """Ed25519, ECDSA and RSA-PSS verify, each for every role."""
    repository = TufRepository(tmp_path / "repository", keytype=keytype)
    repository.add("file", b"data")
    repository.update("targets")
    with Origin(repository.folder) as origin:
        driver = Driver(tmp_path / "client", repository, origin)
        assert driver.download("file") == b"data"


@pytest.mark.parametrize("role", TOP)
def test_thresholds_count_keys(driver, repository, role):
    """Two of two sign: taken. Two wanted, one signed: refused, for every role."""
    driver.refresh()
    repository.add_key(role)
    repository.root.roles[role].threshold = 2
    repository.update_root()
    repository.update("targets")
    driver.refresh()
    repository.signers[role].pop()
    if role == "root":
        repository.update_root()
    else:
        repository.update("targets")
    refused(driver, "metadata_forged")


def test_one_key_under_many_ids_signs_once(driver, repository):
    """A threshold is a number of keys, not of names for one."""
    driver.refresh()
    (signer,) = repository.signers["snapshot"]
    key = signer.public_key
    for number in range(3):
        copy = key.__class__(
            f"{number}" * 64, key.keytype, key.scheme, dict(key.keyval)
        )
        repository.root.add_key(copy, "snapshot")
    repository.root.roles["snapshot"].threshold = 3
    repository.update_root()
    repository.update()
    refused(driver)
    assert driver.version("snapshot") == 1


def test_a_chain_of_root_rotations(driver, repository):
    """Each root signed by the one before: all are walked, from the first."""
    for _ in range(5):
        repository.rotate("root")
        repository.update_root()
        del repository.signers["root"][1:]
    for role in TOP[1:]:
        repository.rotate(role)
    repository.update_root()
    repository.update("targets")
    driver.refresh()
    assert driver.version("root") == 7


def test_a_root_that_the_one_before_did_not_sign(driver, repository):
    driver.refresh()
    repository.rotate("root")
    del repository.signers["root"][1:]  # the new key alone
    repository.update_root()
    refused(driver, "metadata_forged")
    assert driver.version("root") == 1


def test_a_root_whose_number_is_not_the_next(driver, repository):
    driver.refresh()
    repository.root.version = 2
    repository.publish("root")  # version 3
    folder = repository.folder / "metadata"
    (folder / "3.root.json").rename(folder / "2.root.json")
    refused(driver)
    assert driver.version("root") == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_fast_forward_is_recovered_from_by_new_keys(driver, repository, role):
    """Versions of a thief end with his key (specification 5.3.11)."""
    signed = {name: repository.role(name) for name in TOP[1:]}
    honest = {name: each.version for name, each in signed.items()}
    signed[role].version = 2**31
    if role == "targets":
        repository.snapshot.meta["targets.json"] = MetaFile(2**31)
    if role in {"targets", "snapshot"}:
        repository.timestamp.snapshot_meta.version = signed["snapshot"].version
    repository.publish(*TOP[1:], bump=False)
    driver.refresh()
    for name in TOP[1:]:
        signed[name].version = honest[name] + 1
    for name in ("timestamp", "snapshot"):
        repository.rotate(name)
    repository.update_root()
    repository.update("targets")
    driver.refresh()
    assert driver.version(role) < 100


@pytest.mark.parametrize("name", ["?", "#", "a b", "ünï", "/abs", "../up", "%2e%2e"])
def test_odd_role_names_stay_inside(driver, repository, tmp_path, name):
    """Role names become addresses and file names: quoted in both."""
    repository.delegate(name, ["*"])
    repository.update("targets", name)
    with pytest.raises(UpdaterError):
        driver.download("nobody-signed-this")
    kept = {path.name for path in driver.metadata.glob("*.json")}
    assert len(kept) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"client", "repository"}


def test_delegations_are_asked_in_order_and_end_where_they_say(driver, repository):
    """First match wins, a terminating role ends the search, cycles end as well."""
    repository.delegate("first", ["a/*"])
    repository.delegate("last", ["a/*"], terminating=True)
    repository.delegate("never", ["a/*"])
    repository.delegate("first-again", ["a/*"], by="first")
    repository.delegate("targets-again", ["a/*"], by="first-again")
    repository.add("a/both", b"first", role="first")
    repository.add("a/both", b"last", role="last")
    repository.add("a/deep", b"deep", role="targets-again")
    repository.add("a/hidden", b"never", role="never")
    repository.add("b/outside", b"outside", role="first")
    names = ("first", "last", "never", "first-again", "targets-again")
    repository.update("targets", *names)
    assert driver.download("a/both") == b"first"
    assert driver.download("a/deep") == b"deep"
    for nobody in ("a/hidden", "b/outside"):
        with pytest.raises(UpdaterError):
            driver.download(nobody)


@pytest.mark.parametrize("consistent", [True, False], ids=["hashed", "plain"])
@pytest.mark.parametrize("name", ["file.txt", "path/to/a/file", "ünï cödé", "a+b"])
def test_artifacts_by_name(tmp_path, consistent, name):
    """In folders and in any script; with and without the hash before the name."""
    repository = TufRepository(tmp_path / "repository", consistent=consistent)
    repository.add(name, b"contents")
    repository.update("targets")
    with Origin(repository.folder) as origin:
        origin.misbehave(
            "%", lambda handler: handler.file(origin.root / unquote(handler.path[1:]))
        )
        driver = Driver(tmp_path / "client", repository, origin)
        assert driver.download(name) == b"contents"
        origin.requests.clear()
        assert driver.download(name) == b"contents"
        assert not any("/targets/" in path for path in origin.requests)


@pytest.mark.parametrize("evil", [b"x", b"much longer than what was signed", b""])
def test_substituted_artifacts_are_not_kept(driver, repository, evil):
    """Too short, too long, other bytes: refused, and what was there stays."""
    repository.add("one", b"contents")
    repository.add("two", b"contents")
    repository.update("targets")
    assert driver.download("one") == b"contents"
    driver.origin.misbehave("/targets/", body(evil))
    assert driver.download("one") == b"contents"
    with pytest.raises(UpdaterError):
        driver.download("two")
    assert len(list(driver.targets.iterdir())) == 1


def test_an_artifact_that_changes_is_fetched_again(driver, repository):
    for number in range(4):
        repository.add("file", f"edition {number}".encode())
        repository.update("targets")
        assert driver.download("file") == f"edition {number}".encode()
    assert len(list(driver.targets.iterdir())) == 1
