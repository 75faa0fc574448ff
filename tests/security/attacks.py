# SPDX-License-Identifier: Apache-2.0
"""The attacks of the threat table that metadata has to stand, one function each.

An attack gets a rig whose machine runs `rig.installed` while `rig.published` is on
offer, and turns the server between them hostile, in one variant after the other.
`codes` are the reasons that may be reported.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path

from fakes import origin as origins
from fakes.repository import Publisher
from fakes.rig import PLATFORM, Rig

from updaterd.core.channel import Offer, Rollout
from updaterd.release import publish

BOMBS = {
    "deep_nesting": b"[" * 3900,
    "deep_objects": b'{"a":' * 600 + b"1" + b"}" * 600,
    "huge_integer": b'{"signed":{"version":' + b"9" * 3900 + b"}}",
    "nan": b'{"signed":{"version":NaN,"_type":"timestamp"},"signatures":[]}',
    "bad_utf8": b'{"signed":"\xff\xfe\x80"}',
    "wrong_shape": b'{"signed":[],"signatures":{}}',
    "empty": b"",
    "null": b"null",
}


@dataclass(frozen=True)
class Attack:
    name: str
    variants: tuple[tuple[str, Callable[[Rig], None]], ...]
    codes: frozenset[str]


ATTACKS: list[Attack] = []
FILES = {
    "root": r"2\.root\.json",
    "timestamp": r"timestamp\.json",
    "snapshot": r"snapshot\.json",
    "stable": r"acme\.stable\.json",
    "releases": r"acme\.releases\.json",
    "manifest": r"/targets/acme/releases/",
    "blob": r"/blobs/",
}


def attack(*codes: str):
    def enter(make):
        ATTACKS.append(
            Attack(make.__name__, ((make.__name__, make),), frozenset(codes))
        )
        return make

    return enter


def per_file(*codes: str, files=tuple(FILES)):
    """Enter the attack once for each kind of file; the maker gets a path pattern."""

    def enter(make):
        variants = tuple((file, partial(make, at=FILES[file])) for file in files)
        ATTACKS.append(Attack(make.__name__, variants, frozenset(codes)))
        return make

    return enter


def stranger(rig: Rig) -> Publisher:
    shutil.rmtree(rig.folder / "stranger", ignore_errors=True)
    made = Publisher(rig.folder / "stranger", now=datetime.now(UTC))
    made.release("6.6.6")
    repository = made.open()
    repository.timestamp.version = 10_000  # or it would only look stale
    repository.touch("timestamp")
    repository.commit()
    return made


@attack("metadata_forged", "metadata_mixed")
def arbitrary_software(rig: Rig):
    """Another repository, complete and well signed, by keys nobody gave us."""
    rig.serve_from(stranger(rig).public)


@attack("metadata_forged")
def arbitrary_software_with_a_new_root(rig: Rig):
    """The stranger also offers a root of the next version, signed by itself."""
    other = stranger(rig)
    repository = other.open()
    repository.touch("root")
    repository.commit()
    rig.serve_from(other.public)


@attack("metadata_mixed")
def mix_and_match_releases(rig: Rig):
    """The snapshot of today with the releases of yesterday."""
    _old_under_new_name(rig, "acme.releases")


@attack("metadata_mixed")
def mix_and_match_channel(rig: Rig):
    """The snapshot of today with the channel of yesterday."""
    _old_under_new_name(rig, "acme.stable")


def _old_under_new_name(rig: Rig, role: str):
    now = rig.publisher.open().roles[role].signed.version
    old = (rig.publisher.metadata / f"{now - 1}.{role}.json").read_bytes()
    rig.origin.misbehave(rf"{now}\.{role}\.json", origins.body(old))


@attack("metadata_mixed")
def mix_and_match_manifest(rig: Rig):
    """The manifest of another release under the name of this one."""
    folder = rig.publisher.public / f"targets/acme/releases/{rig.installed}"
    (other,) = folder.iterdir()
    rig.origin.misbehave("/targets/acme/releases/", origins.body(other.read_bytes()))


@attack("metadata_expired")
def freeze(rig: Rig):
    """A timestamp that was signed a week and a day ago, and nothing since."""
    rig.publisher.now -= timedelta(days=8)
    rig.publisher.refresh()
    rig.publisher.now += timedelta(days=8)
    rig.heal = rig.publisher.refresh


@per_file("endless_data", "hash_mismatch", "no_usable_bundle")
def endless_data(rig: Rig, at: str):
    rig.origin.misbehave(at, origins.endless)


@per_file("cross_origin_redirect")
def redirect_lure(rig: Rig, at: str):
    """To the same port of another name: loopback, too, and still elsewhere."""
    lure = f"http://localhost:{rig.origin.server_port}/metadata/1.root.json"
    rig.origin.misbehave(at, origins.redirect(lure))


@per_file("content_encoding", files=("root", "timestamp", "manifest", "blob"))
def compression_bomb(rig: Rig, at: str):
    rig.origin.misbehave(
        at, origins.body(b"\x1f\x8b" * 100, **{"Content-Encoding": "gzip"})
    )


@per_file("http_503", files=("root", "timestamp", "snapshot", "stable", "blob"))
def outage(rig: Rig, at: str):
    rig.origin.misbehave(at, origins.status(503))


@per_file("metadata_missing", files=("timestamp", "snapshot", "stable", "manifest"))
def withheld(rig: Rig, at: str):
    rig.origin.misbehave(at, origins.status(404))


@per_file("unreachable", files=("timestamp", "stable", "manifest"))
def hang_up(rig: Rig, at: str):
    rig.origin.misbehave(at, origins.cut(100))


def _bomb(rig: Rig, kind: str, at: str):
    rig.origin.misbehave(at, origins.body(BOMBS[kind]))


ATTACKS.append(
    Attack(
        "parser_bombs",
        # each file in turn; test_every_byte has every bomb in every file
        tuple(
            (f"{kind}_{file}", partial(_bomb, kind=kind, at=FILES[file]))
            for kind, file in zip(
                BOMBS, cycle(("root", "timestamp", "snapshot")), strict=False
            )
        ),
        frozenset({"metadata_malformed", "metadata_forged"}),
    )
)


@attack("wrong_target")
def wrong_channel(rig: Rig):
    """A validly signed pointer that says it is another channel's."""
    point(rig, channel="nightly")


@attack("wrong_target")
def wrong_product(rig: Rig):
    """A validly signed pointer that says it is another product's."""
    point(rig, product="other")


@attack("no_such_release")
def channel_key_invents_a_release(rig: Rig):
    """A stolen online key points to a release that no release key signed."""
    rollout = Rollout(salt="x")
    point(rig, releases=(Offer(version="6.6.6", seq=666, rollout=rollout),))


@attack("no_such_release")
def channel_key_signs_a_manifest(rig: Rig):
    """A stolen online key signs the manifest itself, outside its paths."""
    repository = rig.publisher.open()
    catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
    manifest = catalog.manifest(catalog.require(rig.installed))
    evil = replace(manifest, version="6.6.6", seq=666)
    path = f"acme/releases/6.6.6/{PLATFORM}.json"
    target = catalog._write(path, evil.encode(), {"seq": 666})
    with repository.edit("acme.stable") as role:
        role.targets[path] = target
    rollout = Rollout(salt="x")
    offer = Offer(version="6.6.6", seq=666, rollout=rollout)
    good = catalog.pointer("stable")
    catalog.point(replace(good, releases=(offer,)))
    repository.commit()

    def heal():
        again = rig.publisher.open()
        publish.catalog_of(rig.publisher.space, again, "acme").point(good)
        again.commit()

    rig.heal = heal


@attack("wrong_target")
def wrong_platform(rig: Rig):
    """A validly signed manifest of another platform in this one's place."""
    sign_manifest(rig, platform="linux-other")


@attack("wrong_target")
def wrong_version(rig: Rig):
    """A validly signed manifest of another version in this one's place."""
    sign_manifest(rig, version="0.0.1")


@attack("malformed", "bad_path")
def manifest_that_leaves_the_tree(rig: Rig):
    """Validly signed, and it wants to write beside the install root."""
    raw = json.loads(manifest_of(rig).encode())
    raw["files"][0]["path"] = "../../evil"
    sign_raw(rig, json.dumps(raw).encode())


@attack("malformed")
def manifest_whose_hash_is_a_path(rig: Rig):
    """Validly signed, and its hash would name a file of this machine."""
    sign_raw(rig, b"{}", sha256="../../../../../../etc/passwd")


@attack("malformed")
def manifest_bomb(rig: Rig):
    """Validly signed, and nested a thousand levels deep."""
    sign_raw(rig, b'{"schema":1,"files":' + b"[" * 1000 + b"]" * 1000 + b"}")


@attack("metadata_malformed")
def role_dropped_from_snapshot(rig: Rig):
    """A validly signed snapshot that forgets a role."""
    repository = rig.publisher.open()
    gone = repository.snapshot.meta.pop("acme.releases.json")
    repository.touch("snapshot")
    repository.commit()
    _heal_later(
        rig, lambda again: again.snapshot.meta.update({"acme.releases.json": gone})
    )


def _heal_later(rig: Rig, mend):
    # how the publisher puts right what a stolen key did

    def heal():
        repository = rig.publisher.open()
        mend(repository)
        repository.touch("snapshot")
        repository.commit()

    rig.heal = heal


def manifest_of(rig: Rig, version: str = ""):
    catalog = publish.catalog_of(rig.publisher.space, rig.publisher.open(), "acme")
    return catalog.manifest(catalog.require(version or rig.published))


def sign_manifest(rig: Rig, **changes):
    sign_raw(rig, replace(manifest_of(rig), **changes).encode())


def sign_raw(rig: Rig, raw: bytes, **hashes: str):
    repository = rig.publisher.open()
    catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
    seq = catalog.require(rig.published).seq
    path = f"acme/releases/{rig.published}/{PLATFORM}.json"
    target = catalog._write(path, raw, {"seq": seq})
    target.hashes.update(hashes)
    with repository.edit("acme.releases") as role:
        good = role.targets[path]
        role.targets[path] = target
    repository.commit()

    def heal():
        again = rig.publisher.open()
        with again.edit("acme.releases") as role:
            role.targets[path] = good
        again.commit()

    rig.heal = heal


def point(rig: Rig, **changes):
    repository = rig.publisher.open()
    catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
    good = catalog.pointer("stable")
    evil = replace(good, **changes)
    path = "acme/channels/stable.json"
    custom = evil.as_custom()
    target = catalog._write(path, json.dumps(custom).encode(), custom)
    with repository.edit("acme.stable") as role:
        role.targets[path] = target
    repository.commit()

    def heal():
        again = rig.publisher.open()
        catalog = publish.catalog_of(rig.publisher.space, again, "acme")
        catalog.point(good)
        again.commit()

    rig.heal = heal


def forged(publisher: Publisher, version: int, folder: Path) -> Path:
    """Return a copy of the repository that a thief of the online key counted up."""
    shutil.copytree(publisher.public, folder)
    keyid = publisher.space.keyring.entry("online").public.keyid
    signer = publisher.space.keyring.signer(keyid)
    meta = folder / "metadata"
    repository = publisher.open()
    roles = repository.roles
    roles["snapshot"].signed.meta["acme.stable.json"].version = version
    roles["timestamp"].signed.snapshot_meta.version = version
    for name in ("acme.stable", "snapshot", "timestamp"):
        roles[name].signed.version = version
        roles[name].sign(signer)
        prefix = "" if name == "timestamp" else f"{version}."
        roles[name].to_file(str(meta / f"{prefix}{name}.json"))
    return folder
