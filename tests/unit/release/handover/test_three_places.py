# SPDX-License-Identifier: Apache-2.0
"""Built without keys, signed offline, published with the online key alone."""

import hashlib
import json
import shutil

import pytest

pytestmark = pytest.mark.slow


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def places(at):
    """1.0.0 went through all of them."""
    return at("first")


@pytest.fixture
def empty(at):
    return at("empty")


def test_two_releases_go_through_three_places(places):
    built = json.loads(places.build("1.1.0"))

    shown = places.sign()
    places.publish()

    assert list(built["platforms"]["linux-x86_64"]["deltas"]) == ["1.0.0"]
    assert built["signed"] is False
    facts = shown["platforms"]["linux-x86_64"]
    assert (facts["seq"], facts["compared_with"]) == (2, "1.0.0")
    assert (facts["new"], facts["changed"], facts["gone"]) == ([], ["app+x"], [])
    assert places.offered() == ["1.1.0"]
    places.verify()


def test_no_place_has_more_keys_than_it_needs(places):

    assert not list(places.root.glob("ci/**/*.pem"))
    assert not list(places.ops.glob("keys/release-*.pem"))
    assert [path.name for path in places.vault.glob("keys/*.pem")] == [
        "release-acme.pem"
    ]


def test_the_same_input_gives_the_same_file(places):

    places.build("1.1.0")
    first = digest(places.file)
    places("refresh", "--repo", places.ops)
    places.build("1.1.0", out=places.root / "again.release")

    assert digest(places.root / "again.release") == first
    assert not list(places.root.glob("*.work"))


def test_what_others_published_meanwhile_is_not_lost(places):
    """Signed again for the state that is now, without building again."""
    other = places.root / "other.release"
    places.build("1.1.0")
    places.build("1.2.0", out=other)
    places.sign()
    places.sign(file=other)
    places.publish(file=other)

    text = places.publish(expect=1)
    assert "signed for another state" in text
    assert places.offered() == ["1.2.0"]
    places.sign("--from", places.ops / "public/metadata")
    text = places.publish(channel=None)

    assert "released acme 1.1.0 (seq 3" in text
    assert places.offered() == ["1.2.0"]
    places.verify()


def test_publishing_again_changes_nothing(places):
    before = {
        path: path.read_bytes()
        for path in (places.ops / "public").rglob("*")
        if path.is_file()
    }

    text = places.publish()

    assert "already released: acme 1.0.0" in text
    after = [path for path in (places.ops / "public").rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in after} == before


def test_what_is_not_signed_is_not_published(at):
    places = at("built")

    assert "is not signed" in places.publish(expect=1)
    assert places.offered() == ["1.0.0"]


def test_a_critical_product_needs_both_signers(tmp_path, empty):
    made = type(empty)(tmp_path / "critical")
    made.root.mkdir()
    made.found("--channel", "stable", "--critical", "acme")
    made.part()
    second = made.vault / "keys/release-acme-2.pem"
    kept = second.read_bytes()
    second.unlink()
    made.build("1.0.0")

    shown = made.sign()
    assert shown["missing_signatures"] == {"acme.releases": 1}
    assert "has 1 of 2 signatures" in made.publish(expect=1)
    (made.vault / "keys/release-acme.pem").unlink()
    second.write_bytes(kept)
    shown = made.sign()
    made.publish()

    assert shown["missing_signatures"] == {}
    assert made.offered() == ["1.0.0"]


def test_a_signer_never_uses_a_version_twice(at):
    """Two files that were signed for one state: a cache may have seen the first."""
    places = at("built")
    other = shutil.copy(places.file, places.root / "other.release")

    versions = [places.sign()["signed"], places.sign(file=other)["signed"]]

    assert versions[0]["acme.releases"] < versions[1]["acme.releases"]


def test_a_signer_who_cannot_tell_what_it_signed_signs_nothing(at):
    """A damaged memory is not an empty one: a version could be signed twice."""
    places = at("built")
    before = digest(places.file)
    (places.vault / "signed.json").write_text("{")

    assert "might be signed twice" in places.sign(expect=1)

    assert digest(places.file) == before


def test_an_attestation_comes_along(empty):
    places = empty
    tree = json.loads(places("subject", places.tree("1.0.0"), "--json"))["tree"]
    given = places.root / "slsa.json"
    given.write_text(
        json.dumps({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "acme", "digest": {"sha256": tree}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {},
        })
    )

    places.build("1.0.0", "--attest", given)
    shown = places.sign()
    places.publish()

    (entry,) = shown["platforms"]["linux-x86_64"]["attestations"]
    assert entry["sha256"] == digest(given)
    places.verify()
