# SPDX-License-Identifier: Apache-2.0
"""Releases that are validly signed and mean harm, at the real daemon's door.

A signature must not be the only defence: each hostile bundle and listing is
signed by the release key itself. After each: the tree byte-identical, nothing beside
it, the daemon alive, the reason in its status, and the next good release installs.
"""

import base64
import json
import re
import zlib

import pytest
from fakes.trees import snapshot
from fakes.waiting import eventually

from security import bundles
from security.attacks import point, stranger
from updaterd.core.channel import Offer, Rollout
from updaterd.errors import UpdaterError
from updaterd.net import Fetcher
from updaterd.release import announce

REFUSED = frozenset({
    "bad_bundle",
    "bad_link",
    "bad_name",
    "bad_output",
    "bad_path",
    "bad_version",
    "cpu_limit",
    "memory_limit",
    "newer_bundle",
    "no_usable_bundle",
    "hash_mismatch",
    "rejected",
    "unknown_codec",
    "wrong_tree",
    "malformed",
    "too_large",
})


@pytest.fixture
def beside(siege):
    """Nothing appears beside the product, whatever a release asks for."""
    precious = siege.rig.folder / "precious"
    precious.write_bytes(b"precious")

    def outside() -> dict:
        roots = ("machine/opt", "precious")
        found = {}
        for root in roots:
            path = siege.rig.folder / root
            found[root] = snapshot(path) if path.is_dir() else path.read_bytes()
        found["names"] = sorted(path.name for path in siege.rig.folder.iterdir())
        return {
            key: {
                name: what
                for name, what in value.items()
                if not name.startswith("acme/")
            }
            if isinstance(value, dict)
            else value
            for key, value in found.items()
        }

    before = outside()
    yield
    assert outside() == before


@pytest.fixture(autouse=True)
def healed(siege):
    """One test that fails must not be the ruin of the next."""
    yield
    siege.rig.heal()
    siege.rig.heal = lambda: None


@pytest.mark.parametrize("name", bundles.FULLS)
def test_hostile_full_bundle(siege, beside, name):
    """Extraneous, missing or other contents, bombs: never more than what was signed."""
    with siege.unseen():
        siege.push()
        bundles.with_full(siege.rig, bundles.FULLS[name](siege.rig))
    siege.provoke(REFUSED, name)
    kept = [p for p in (siege.machine.root / "cache").rglob("*") if p.is_file()]
    assert not kept, "a bomb that was refused must not fill the cache"
    siege.recovers()


def test_hostile_listing(siege, beside):
    """Paths, links, modes, devices: refused before anything is fetched."""
    siege.push()
    for name, change in bundles.LISTINGS.items():
        bundles.with_listing(siege.rig, change)
        siege.rig.origin.behave()
        siege.provoke(REFUSED, name)
        assert not any("/blobs/" in path for path in siege.rig.origin.requests), name
        siege.rig.heal()
    siege.recovers()


INJECTIONS = (
    "1.0;touch${IFS}owned",
    "$(touch owned)",
    "`touch owned`",
    "-rf",
    "../../bin/sh",
    "1.0\nUPDATERD_HOOK=evil",
    "1.0\x1b[2J\x1b]0;owned\x07",
)


def test_hook_injection(siege, beside):
    """Labels that a shell, a path or a terminal would obey are no labels."""
    for version in INJECTIONS:
        siege.push()
        offer = Offer(version=version, seq=10**6, rollout=Rollout(salt="x"))
        point(siege.rig, releases=(offer,))
        said = siege.provoke(REFUSED, version)
        assert "not a usable label" in said
        siege.rig.heal()
    siege.recovers()
    assert not list(siege.rig.folder.rglob("owned"))


def test_log_and_terminal_injection(siege):
    """Control characters from signed metadata reach no log, status or terminal."""
    siege.push()
    point(siege.rig, product="\x1b[2J\x1b]0;owned\x07\r\n<3>forged line")
    siege.provoke(REFUSED | {"wrong_target"}, "terminal")
    for words in (["status"], ["status", "--json"], ["history"], ["check"]):
        done = siege.machine(*words, expect=None)
        said = done.stdout + done.stderr
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said), words
        assert not re.search(r"^<3>|^forged", said, re.MULTILINE)
    siege.recovers()


def test_token_theft(siege):
    """Its thief announces what he likes, with metadata of his own: nothing comes."""
    evil = stranger(siege.rig)
    timestamp, snapshot_file = evil.open().pushed()
    packed = {
        name: base64.b64encode(zlib.compress(data)).decode()
        for name, data in (("timestamp", timestamp), ("snapshot", snapshot_file))
    }
    before = siege.rig.tree()
    checked = siege._checked_at()
    body = {"schema": 1, "product": "acme", "channel": "stable", "version": "6.6.6",
            "seq": 666, "urgency": "critical", "tuf": packed}  # fmt: skip
    with Fetcher() as fetcher:
        for text in (body, {**body, "patch_url": "http://127.0.0.1:9/evil"}):
            try:
                announce.announce(
                    fetcher, siege.site.feed_url, siege.site.token,
                    json.dumps(text).encode(),
                )  # fmt: skip
            except UpdaterError:
                continue  # the feed refuses some of it; machines must not need that
    siege.attacks += 1
    siege.tell()
    eventually(lambda: siege._checked_at() > checked, event="a look")
    assert siege.rig.tree() == before
    siege.recovers()
