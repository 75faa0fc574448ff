# SPDX-License-Identifier: Apache-2.0
"""A built release, examined and signed where the release key is.

Nothing is believed that the release file says of itself: hashes are computed again,
edges are compared with signed manifests, and its place in the order is given here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile

from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Delta, Manifest
from updaterd.errors import RejectedError, UpdaterError
from updaterd.release import attestations
from updaterd.release.handover import file as release_files
from updaterd.release.handover import memory as memories
from updaterd.release.handover import state as states
from updaterd.release.handover.file import Content, ReleaseFile
from updaterd.release.handover.making import own_blobs
from updaterd.release.handover.state import Listing, State
from updaterd.release.keys.keyring import Keyring
from updaterd.release.order import Order, place
from updaterd.release.repository import signing
from updaterd.release.repository.metadata import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What is to be signed.

    Attributes:
        state: what is published, as far as it is known at this place.
        repository: its roles, changed, not signed yet.
        manifests: of the release, at its place in the order.
        bases: the newest release before it on each platform that has some; None: its
            manifest is not at hand.
    """

    state: State
    repository: Repository
    manifests: tuple[Manifest, ...]
    bases: Mapping[str, Manifest | None]


def state_of(release: ReleaseFile, trusted: Metadata[Root]) -> State:
    """Return what was published when a release file was built.

    Raises:
        RejectedError: the trusted root does not vouch for it.
    """
    members = release.of_kind(release_files.STATE)
    files = {member.name: release.read(member) for member in members}
    return states.judge(files, trusted, release.product)


def propose(  # noqa: PLR0913 - what is signed, and with what
    release: ReleaseFile,
    state: State,
    folder: Path,
    keyring: Keyring,
    *,
    now: datetime,
    seq: int | None = None,
) -> Proposal:
    """Return what is to be signed, after everything in the file was checked.

    Args:
        release: the release file.
        state: what is published.
        folder: an empty directory.
        keyring: keys that are here.
        now: time of signing.
        seq: the release's place; None: the next.

    Raises:
        RejectedError: something in it is not what it should be.
        BrokenError: there is no such product.
        _refused: that refusal.
    """
    repository = state.repository(folder, keyring, now)
    bases = {
        member.sha256: release.read(member)
        for member in release.of_kind(release_files.BASE)
    }
    listing = Listing(repository, release.product, lambda target: _base(bases, target))
    drafts = [
        _draft(release, member) for member in release.of_kind(release_files.DRAFT)
    ]
    if not drafts or len({draft.platform for draft in drafts}) < len(drafts):
        raise _refused(release, "it has no manifest, or two for one platform")
    _check_blobs(release, drafts)
    newest: dict[str, Manifest | None] = {}
    entered = []
    published = _signed_before(release, repository)
    for draft in sorted(drafts, key=lambda draft: draft.platform):
        _check_edges(release, listing, draft)
        order = Order(
            product=draft.product,
            version=draft.version,
            platform=draft.platform,
            seq=seq,
            floor_seq=draft.floor_seq,
        )
        at = published.get(draft.platform, listing.now)
        pace = draft.pace and replace(draft.pace, published_at=at)
        manifest = replace(draft, seq=place(listing, order), pace=pace)
        for entry in listing.listed():
            if entry.platform == draft.platform and entry.version != draft.version:
                newest[draft.platform] = None
                with suppress(UpdaterError):
                    newest[draft.platform] = listing.manifest(entry)
                break
        listing.add(manifest)
        entered.append(manifest)
    return Proposal(
        state=state,
        repository=repository,
        manifests=tuple(entered),
        bases=newest,
    )


def _base(bases: Mapping[str, bytes], target: TargetFile) -> bytes:
    return bases.get(target.hashes["sha256"], b"")


def _signed_before(release: ReleaseFile, repository: Repository) -> dict[str, int]:
    """Return when a pace starts by what another place signed of the file, by platform.

    The first who signs says when; who adds a signature signs the same. What nobody
    signed says nothing: a pace must not start before the release is there.
    """
    role = layout.releases_role(release.product)
    raw = earlier_roles(release).get(role)
    if raw is None:
        return {}
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
    except RepositoryError:
        return {}
    if not signing.valid(repository, role, metadata):
        return {}
    listed = {
        target.hashes.get("sha256") for target in metadata.signed.targets.values()
    }
    times = {}
    for member in release.of_kind(release_files.MANIFEST):
        if member.sha256 in listed:
            manifest = manifests.parse(release.read(member), where=str(release.path))
            if manifest.pace is not None:
                times[member.name] = manifest.pace.published_at
    return times


def _draft(release: ReleaseFile, member: release_files.Member) -> Manifest:
    raw = release.read(member)
    draft = manifests.parse(raw, where=f"{release.path}: manifest")
    if draft.encode() != raw:
        raise _refused(release, "a manifest says more than this updaterd understands")
    names = (draft.product, draft.version, draft.platform)
    if names != (release.product, release.version, member.name):
        raise _refused(release, f"a manifest is of {' '.join(names)}")
    return draft


def _check_blobs(release: ReleaseFile, drafts: Sequence[Manifest]) -> None:
    """Hash everything, and compare it with what the manifests name.

    Raises:
        RejectedError: something is other than named, missing, or too much.
        _refused: that refusal.
    """
    bundles = {
        digest: length
        for draft in drafts
        for digest, length in own_blobs(draft).items()
    }
    members = release.of_kind(release_files.BLOB)
    if {member.sha256: member.length for member in members} != bundles:
        raise _refused(release, "its bundles are not those that its manifests name")
    for member in members:
        release.check(member)
    attested = {
        member.sha256: release.read(member)
        for member in release.of_kind(release_files.ATTESTATION)
    }
    named = {entry.sha256 for draft in drafts for entry in draft.attestations}
    if attested.keys() != named:
        raise _refused(
            release, "its attestations are not those that its manifests name"
        )
    for draft in drafts:
        for entry in draft.attestations:
            for fault in attestations.faults(
                draft, entry, attested[entry.sha256], where=draft.platform
            ):
                raise _refused(release, fault)


def _check_edges(release: ReleaseFile, listing: Listing, draft: Manifest) -> None:
    """Compare each delta's ends with signed manifests.

    Raises:
        RejectedError: one starts from another tree than was published, or leads
            elsewhere.
        _refused: that refusal.
    """
    tree = draft.tree
    for edge in draft.deltas:
        where = f"the delta from {edge.from_version}"
        if edge.to_tree == tree:
            if edge.to_version != draft.version:
                raise _refused(release, f"{where} leads to {edge.to_version}")
            base = _published(release, listing, edge.from_version, draft.platform)
            if base.tree != edge.from_tree:
                raise _refused(
                    release,
                    f"{where} starts from the tree {edge.from_tree[:12]}, published is "
                    f"{base.tree[:12]}",
                )
        else:
            base = _published(release, listing, edge.to_version, draft.platform)
            if not _lists(base, edge):
                raise _refused(
                    release, f"{where} to {edge.to_version} was never published"
                )


def _published(
    release: ReleaseFile, listing: Listing, version: str, platform: str
) -> Manifest:
    entry = listing.find(version, platform)
    if entry is None:
        raise _refused(
            release,
            f"it has a delta for {version} ({platform}), which is not published",
        )
    try:
        return listing.manifest(entry)
    except UpdaterError as error:
        raise _refused(
            release, f"the signed manifest of {version} ({platform}) is not in it"
        ) from error


def _lists(base: Manifest, edge: Delta) -> bool:
    return edge in base.deltas


def sign(
    proposal: Proposal, keyring: Keyring, earlier: Mapping[str, bytes], memory: Path
) -> dict[str, Metadata[Any]]:
    """Sign the roles of a proposal with the keys that are here.

    Args:
        proposal: what is to be signed.
        keyring: the keys.
        earlier: roles that were signed for this file before, by name: another place's
            signature is added to them where they say the same.
        memory: file that remembers which versions were signed here, so that none is
            signed twice.

    Returns:
        The roles, by name; perhaps not with all signatures that they need.

    Raises:
        MissingKeysError: no key that is here could add anything.
        BrokenError: a key cannot be used.

    Power cut: a version may be remembered that was not signed; it is passed over.
    """
    repository, targets = proposal.repository, proposal.repository.targets()
    highest = memories.read(memory)
    roles: dict[str, Metadata[Any]] = {}
    for role in repository.edited:
        before = _usable(repository, role, earlier.get(role))
        if before is not None:
            roles[role] = before
            continue
        roles[role] = repository.renew(role)
        version = max(roles[role].signed.version, highest.get(role, 0) + 1)
        roles[role].signed.version = highest[role] = version
    memories.keep(memory, highest)
    for role, metadata in roles.items():
        keyids, threshold = repository.authority(role)
        for keyid in keyids:
            if len(metadata.signatures) < threshold and (
                keyid not in metadata.signatures
            ):
                signer = keyring.signer(keyid)
                if signer is not None:
                    signing.sign_one(metadata, signer, role)
        if not metadata.signatures:
            signing.require(role, keyids, threshold, 0, keyring)
        if len(metadata.signatures) >= threshold:
            targets.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    return roles


def missing(proposal: Proposal, roles: Mapping[str, Metadata[Any]]) -> dict[str, int]:
    """Return how many signatures each role still needs."""
    lacking = {}
    for role, metadata in roles.items():
        _, threshold = proposal.repository.authority(role)
        if len(metadata.signatures) < threshold:
            lacking[role] = threshold - len(metadata.signatures)
    return lacking


def _usable(
    repository: Repository, role: str, earlier: bytes | None
) -> Metadata[Any] | None:
    """Return a role that was signed before, with what is valid of its signatures."""
    if earlier is None:
        return None
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(earlier)
    except RepositoryError:
        return None
    if not says_the_same(metadata, repository.roles[role]):
        return None
    if metadata.signed.is_expired(repository.now):
        return None
    valid = signing.valid(repository, role, metadata)
    metadata.signatures.clear()
    metadata.signatures.update(valid)
    return metadata if valid else None


def says_the_same(role: Metadata[Any], other: Metadata[Any]) -> bool:
    """Tell whether two editions of a role differ in version and times at most."""
    return _said_by(role) == _said_by(other)


def _said_by(role: Metadata[Any]) -> dict[str, object]:
    members: dict[str, Any] = role.signed.to_dict()
    for name in ("version", "expires"):
        members.pop(name, None)
    targets = members.get("targets", {})
    return {**members, "targets": {path: _timeless(targets[path]) for path in targets}}


def _timeless(target: dict[str, Any]) -> dict[str, Any]:
    """Return a target without the moment at which it was signed."""
    custom = target.get("custom")
    if not isinstance(custom, dict):
        return target
    rest = {name: value for name, value in custom.items() if name != "at"}
    return {**target, "custom": rest}


def contents(
    release: ReleaseFile, proposal: Proposal, roles: Mapping[str, Metadata[Any]]
) -> Iterator[Content]:
    """Yield what the signed release file consists of."""
    for name, raw in sorted(proposal.state.files.items()):
        yield Content(kind=release_files.STATE, name=name, source=raw)
    for role, metadata in sorted(roles.items()):
        yield Content(
            kind=release_files.ROLE,
            name=layout.role_file(role),
            source=metadata.to_bytes(),
        )
    for manifest in proposal.manifests:
        yield Content(
            kind=release_files.MANIFEST,
            name=manifest.platform,
            source=manifest.encode(),
        )
    remade = {release_files.STATE, release_files.ROLE, release_files.MANIFEST}
    for member in release.members:
        if member.kind not in remade:
            yield Content(kind=member.kind, name=member.name, member=member)


def earlier_roles(release: ReleaseFile) -> dict[str, bytes]:
    """Return the roles that were signed for a release file before, by name."""
    return {
        layout.stem(member.name): release.read(member)
        for member in release.of_kind(release_files.ROLE)
    }


def _refused(release: ReleaseFile, cause: str) -> RejectedError:
    return RejectedError(
        f"{release.path} is not what a builder makes: {cause}",
        means="it was changed after it was built, or built against something else; "
        "nothing was signed",
        do="build it again, and look at the machine that built it",
        code="release_file_refused",
    )
