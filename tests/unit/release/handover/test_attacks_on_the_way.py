# SPDX-License-Identifier: Apache-2.0
"""A builder, or whoever carries the file, is a stranger: each test is one attack.

The attacker writes whole release files with correct hashes, as a builder can.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from updaterd.core import manifest as manifests
from updaterd.core.attributes import Attributes, Folder
from updaterd.release.handover import file as files
from updaterd.release.handover.file import Content, ReleaseFile

pytestmark = pytest.mark.slow


@pytest.fixture
def built(at):
    """1.0.0 is out; 1.1.0 is built, with a delta from it."""
    return at("built")


def members(path: Path) -> list[Content]:
    with ReleaseFile.open(path) as release:
        return [
            Content(kind=m.kind, name=m.name, source=b"".join(release._pieces(m)))
            for m in release.members
        ]


def forge(path: Path, *, change=None, drop=(), add=(), version="1.1.0") -> None:
    """Write the file anew, its hashes right."""
    contents = [c for c in members(path) if c.kind not in drop]
    files.write(
        path, "acme", version, [*((change or (lambda c: c))(c) for c in contents), *add]
    )


def manifest_changed(kind=files.DRAFT, **changes):
    def change(content):
        if content.kind != kind:
            return content
        changed = replace(manifests.parse(content.source), **changes)
        return replace(content, source=changed.encode())

    return change


def of(path: Path, kind=files.DRAFT):
    (content,) = [c for c in members(path) if c.kind == kind]
    return manifests.parse(content.source)


def test_a_blob_swapped_after_the_build(built):
    """The carrier's: other bytes under the old hash."""
    with ReleaseFile.open(built.file) as release:
        blob = release.of_kind(files.BLOB)[0]
    raw = bytearray(built.file.read_bytes())
    raw[blob.at + blob.length // 2] ^= 1
    built.file.write_bytes(raw)

    assert "has other bytes" in built.sign(expect=1)


def test_a_blob_swapped_by_the_builder(built):
    """With the index made right: it is not what the manifest names."""

    def change(content):
        is_blob = content.kind == files.BLOB
        return replace(content, source=b"evil" * 50) if is_blob else content

    forge(built.file, change=change)

    assert "not those that its manifests name" in built.sign(expect=1)


def test_a_blob_that_nothing_names_is_no_stowaway(built):
    forge(built.file, add=[Content(kind=files.BLOB, name="", source=b"luggage")])

    assert "not those that its manifests name" in built.sign(expect=1)


def test_a_delta_from_another_base(built):
    """Machines would fetch it, and end at what the attacker knows."""
    (edge,) = of(built.file).deltas
    forge(
        built.file,
        change=manifest_changed(deltas=(replace(edge, from_tree="ab" * 32),)),
    )

    assert "starts from the tree abababababab" in built.sign(expect=1)


def test_a_base_that_was_never_published(built):
    (edge,) = of(built.file).deltas
    forge(
        built.file, change=manifest_changed(deltas=(replace(edge, from_version="9"),))
    )

    assert "which is not published" in built.sign(expect=1)


def test_a_base_manifest_of_the_builders_own(built):
    """Not the one that the release key signed: it is not looked at."""

    def change(content):
        if content.kind != files.BASE:
            return content
        base = manifests.parse(content.source)
        return replace(content, source=replace(base, floor_seq=1).encode())

    forge(built.file, change=change)

    assert "signed manifest of 1.0.0" in built.sign(expect=1)


def test_a_carried_edge_that_no_release_lists(built):
    (edge,) = of(built.file).deltas
    forged = replace(
        edge, from_version="0.9", to_version="1.0.0", to_tree=edge.from_tree
    )
    forge(built.file, change=manifest_changed(deltas=(edge, forged)))

    assert "was never published" in built.sign(expect=1)


def test_a_builder_that_exhausts_the_order_of_releases(built):
    """Its seq is not taken over: the signer gives the place."""
    forge(built.file, change=manifest_changed(seq=2**52 - 1))

    assert built.sign()["seq"] == 2


def test_roles_of_the_builders_own(built):
    """Metadata that says what was published, signed by nobody's key."""

    def change(content):
        if content.name != "acme.releases.json":
            return content
        document = json.loads(content.source)
        document["signed"]["targets"] = {}
        return replace(content, source=json.dumps(document).encode())

    forge(built.file, change=change)

    assert "cannot be trusted" in built.sign(expect=1)


def test_a_manifest_changed_after_it_was_signed(built):
    built.sign()
    forge(built.file, change=manifest_changed(files.MANIFEST, min_updater="0.2.0"))

    assert "what was signed is not what the file holds" in built.publish(expect=1)
    assert built.offered() == ["1.0.0"]


def test_a_blob_swapped_after_it_was_signed(built):
    built.sign()

    def change(content):
        is_blob = content.kind == files.BLOB
        return replace(content, source=b"evil" * 50) if is_blob else content

    forge(built.file, change=change)

    assert "not in it" in built.publish(expect=1)
    assert built.offered() == ["1.0.0"]


@pytest.mark.parametrize("kind", [files.BLOB, files.ATTESTATION])
def test_a_stowaway_that_came_aboard_after_it_was_signed(built, kind):
    """It would be served under the publisher's address."""
    built.sign()
    forge(built.file, add=[Content(kind=kind, name="", source=b"luggage")])

    assert "no signed manifest names" in built.publish(expect=1)
    assert built.offered() == ["1.0.0"]


def test_release_notes_that_the_signer_was_not_shown(built):
    """Users would read them as the publisher's word."""
    forged = "Call 555 \u202efor\x1b[2J help\nfor acme 9 (seq 9)"
    forge(built.file, change=manifest_changed(notes=(("de", forged),)))

    text = built("sign", built.file, "--repo", built.vault, "--yes")
    facts = built.sign()["platforms"]["linux-x86_64"]

    assert "notes (de), with characters that nobody sees (U+202E):" in text
    assert "\n    | Call 555 for[2J help\n    | for acme 9 (seq 9)\n" in text
    assert facts["notes"] == {"de": forged}


def test_folder_modes_that_the_signer_was_not_shown(built):
    folders = (Folder("closed", 0o700), Folder("usual", 0o755))
    forge(built.file, change=manifest_changed(attributes=Attributes(folders=folders)))

    text = built("sign", built.file, "--repo", built.vault, "--yes")
    facts = built.sign()["platforms"]["linux-x86_64"]

    assert "folder 'closed' is 700\n" in text
    assert facts["folders"] == {"closed": "700"}


def test_a_role_signed_by_a_key_of_the_thiefs(built):
    built.sign()

    def change(content):
        if content.kind != files.ROLE:
            return content
        document = json.loads(content.source)
        for signature in document["signatures"]:
            signature["sig"] = "00" * 64
        return replace(content, source=json.dumps(document).encode())

    forge(built.file, change=change)

    assert built.publish(expect=1)
    assert built.offered() == ["1.0.0"]


def test_a_signed_file_used_again_to_roll_back(built):
    """1.1.0 was published, withdrawn and followed: its file does not bring it back."""
    built.sign()
    old = built.root / "old.release"
    old.write_bytes(built.file.read_bytes())
    built.publish()
    key = built.ops / "keys/release-acme.pem"
    key.write_bytes((built.vault / "keys/release-acme.pem").read_bytes())
    yank = ("yank", "--product", "acme", "--version", "1.1.0", "--repo")
    built(*yank, built.ops)
    key.unlink()

    assert "another state" in built.publish(file=old, expect=1)
    assert built.offered() == ["1.0.0"]


def test_an_old_signed_file_does_not_take_the_channel_back(built):
    built.sign()
    old = built.root / "old.release"
    old.write_bytes(built.file.read_bytes())
    built.publish()
    built.all("1.2.0")

    assert "already offers a later release" in built.publish(file=old, expect=1)
    assert built.offered() == ["1.2.0"]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999999])
def test_a_file_that_was_cut_short(built, share):
    """A stick that was pulled out: said at once, before anything is hashed."""
    raw = built.file.read_bytes()
    built.file.write_bytes(raw[: int(len(raw) * share)])

    with (
        pytest.raises(files.MalformedError, match="release file"),
        ReleaseFile.open(built.file),
    ):
        pass


@pytest.mark.parametrize(
    "index",
    [
        {"schema": 2},
        {"schema": 1, "product": "../../etc", "version": "1", "members": []},
        {"schema": 1, "product": "acme", "version": "../1", "members": []},
        {"schema": 1, "product": "acme", "version": "1", "members": [{}]},
        {
            "schema": 1,
            "product": "acme",
            "version": "1",
            "members": [
                {"kind": "role", "name": "x", "sha256": "00" * 32, "length": 2**40}
            ],
        },
        {
            "schema": 1,
            "product": "acme",
            "version": "1",
            "members": [
                {"kind": "evil", "name": "x", "sha256": "00" * 32, "length": 0}
            ],
        },
    ],
)
def test_hostile_indexes(tmp_path, index):
    raw = json.dumps(index).encode()
    path = tmp_path / "hostile"
    path.write_bytes(files.MAGIC + len(raw).to_bytes(8, "big") + raw)

    with pytest.raises(files.MalformedError), ReleaseFile.open(path):
        pass


def test_an_index_of_terabytes_is_not_read(tmp_path):
    path = tmp_path / "hostile"
    path.write_bytes(files.MAGIC + (2**50).to_bytes(8, "big"))

    with pytest.raises(files.MalformedError), ReleaseFile.open(path):
        pass


def test_a_name_that_leads_elsewhere_is_no_path(built):
    """Names of members are looked up, never written."""
    victim = built.root / "victim"
    forge(
        built.file,
        add=[
            Content(kind=files.STATE, name=f"../../..{victim}", source=b"x"),
            Content(kind=files.STATE, name="/etc/x.json", source=b"x"),
        ],
    )

    built.sign()
    built.publish()

    assert not victim.exists()


def test_the_file_of_another_repository_is_called_that(built, tmp_path):
    """Signing it again would not help."""
    other = type(built)(tmp_path / "other")
    other.root.mkdir()
    other.found("--channel", "stable")
    other.part()
    other.all("1.0.0")
    built.sign()

    said = other.publish(file=built.file, expect=1)
    assert "another repository" in said
    assert "another state" not in said


def test_a_file_for_a_channel_that_is_none_is_refused_with_a_way_out(built):
    built.sign()

    assert "add-channel acme nope" in built.publish(channel="nope", expect=1)


def test_what_a_channel_offers_already_is_said_to_be(built):
    built.sign()
    built.publish()

    said = built.publish(channel=None)
    assert "offered in channel stable already" in said
    assert "no channel offers" not in said
