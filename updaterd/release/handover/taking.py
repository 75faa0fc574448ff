# SPDX-License-Identifier: Apache-2.0
"""A signed release file, taken into the repository by who has the online key.

The file was signed for one state of the repository. Whether that is still the state is
not asked of the file: what its roles say is compared with what they say now and the
new manifests, so nobody's release can be lost, and no old file taken a second time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.core.manifest import Manifest
from updaterd.errors import BrokenError, RejectedError
from updaterd.release import build
from updaterd.release.handover import file as release_files
from updaterd.release.handover.file import ReleaseFile
from updaterd.release.handover.making import own_blobs
from updaterd.release.handover.signing import says_the_same
from updaterd.release.handover.state import Listing
from updaterd.release.order import Added
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.metadata import Repository
from updaterd.release.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a signed release file brings.

    Attributes:
        manifests: of the release, which machines will get.
        roles: new editions of signed roles, by name; none: all is published already.
        published: platforms that are published already.
    """

    manifests: tuple[Manifest, ...]
    roles: Mapping[str, Metadata[Any]]
    published: frozenset[str] = frozenset()

    @property
    def added(self) -> list[Added]:
        """Return the releases as other commands show them."""
        return [
            Added(manifest=manifest, fresh=manifest.platform not in self.published)
            for manifest in self.manifests
        ]


def examine(
    release: ReleaseFile, workspace: Workspace, repository: Repository, now: Repository
) -> Signed:
    """Return what a release file brings, if it was signed for the repository as it is.

    Args:
        release: the release file.
        workspace: where the repository is.
        repository: as it is published; read only.
        now: the same, to try changes in.

    Raises:
        RejectedError: it was changed, or signed for another state.
        BrokenError: it is not signed by all that have to.
        _foreign: no key of this repository signed it.
        _for_another_state: that refusal.
    """
    members = release.of_kind(release_files.MANIFEST)
    if not members or not release.of_kind(release_files.ROLE):
        raise BrokenError(
            f"{release.path} is not signed",
            means="nothing was published",
            do=f"on the machine with the release key: `updaterd release sign "
            f"{release.path.name}`",
            code="not_signed",
        )
    new = [_manifest(release, member) for member in members]
    roles = {
        layout.stem(member.name): _role(release, member)
        for member in release.of_kind(release_files.ROLE)
    }
    public = workspace.public

    def load(target: TargetFile) -> bytes:
        path = layout.target_file(target.path, target.hashes["sha256"])
        return (public / path).read_bytes()

    trial = Listing(now, release.product, load)
    published = {
        manifest.platform for manifest in new if _is_published(trial, manifest)
    }
    fresh = [manifest for manifest in new if manifest.platform not in published]
    if not fresh:
        return Signed(manifests=tuple(new), roles={}, published=frozenset(published))
    for role, metadata in roles.items():
        if role in repository.roles:
            _check_ours(release, repository, role, metadata)
    outdated = _is_outdated(repository, roles)
    if outdated or published:
        raise _for_another_state(release, outdated)
    for manifest in fresh:
        trial.add(manifest)
    if set(now.edited) != roles.keys() or not all(
        says_the_same(roles[role], now.roles[role]) for role in roles
    ):
        raise RejectedError(
            f"{release.path}: what was signed is not what the file holds",
            means="somebody changed it after it was signed; nothing was published",
            do="sign what the builder made again, and look at the way it took",
            code="release_file_refused",
        )
    for role, metadata in roles.items():
        _check_signed(release, repository, role, metadata)
        _check_version(workspace, repository, role, metadata)
    _check_bundles(release, workspace, fresh)
    return Signed(manifests=tuple(new), roles=roles)


def keep(
    release: ReleaseFile,
    workspace: Workspace,
    catalog: Catalog,
    signed: Signed,
    *,
    work: Path,
) -> None:
    """Put a release's files into `public/`, and enter its roles, uncommitted.

    Args:
        release: the release file.
        workspace: where the repository is.
        catalog: the product in it.
        signed: what the file brings.
        work: an empty directory beside the repository.

    Raises:
        RejectedError: a blob is damaged.
        OSError: the disk refused.

    Power cut: blobs and manifests are whole or absent; no role names them yet.
    """
    if not signed.roles:
        return
    blobs = (
        *release.of_kind(release_files.BLOB),
        *release.of_kind(release_files.ATTESTATION),
    )
    for member in blobs:
        if workspace.blob(member.sha256).exists():
            release.check(member)
        else:
            release.copy(member, work / "blob")
        build.settle(workspace, work / "blob", member.sha256)
    version = signed.manifests[0].version
    for channel in catalog.remembering(version):
        catalog.point(catalog.pointer(channel))
    for manifest in signed.manifests:
        catalog.write(manifest)
    for role, metadata in signed.roles.items():
        catalog.adopt(role, metadata)


def _manifest(release: ReleaseFile, member: release_files.Member) -> Manifest:
    raw = release.read(member)
    manifest = manifests.parse(raw, where=f"{release.path}: manifest")
    names = (manifest.product, manifest.version, manifest.platform)
    if manifest.encode() != raw or names != (
        release.product,
        release.version,
        member.name,
    ):
        raise RejectedError(
            f"{release.path}: a manifest is not that of {release.product} "
            f"{release.version}",
            means="somebody changed it; nothing was published",
            do="sign what the builder made again",
            code="release_file_refused",
        )
    return manifest


def _role(release: ReleaseFile, member: release_files.Member) -> Metadata[Any]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(release.read(member))
    except RepositoryError as error:
        raise RejectedError(
            f"{release.path}: {member.name} is not signed metadata",
            means="somebody changed it; nothing was published",
            do="sign what the builder made again",
            code="release_file_refused",
        ) from error
    return metadata


def _is_published(listing: Listing, manifest: Manifest) -> bool:
    entry = listing.find(manifest.version, manifest.platform)
    return entry is not None and listing.manifest(entry) == manifest


def _is_outdated(repository: Repository, roles: Mapping[str, Metadata[Any]]) -> bool:
    """Tell whether releases were published, or withdrawn, since it was signed.

    Then the signed roles lack what is listed now, or are no newer.
    """
    listed = {
        path: target
        for role in roles
        if role in repository.roles
        for path, target in repository.targets(role).targets.items()
    }
    signed: dict[str, TargetFile] = {}
    for role, metadata in roles.items():
        if role not in repository.roles or not isinstance(metadata.signed, Targets):
            return False  # no role of this product: refused for that
        if metadata.signed.version <= repository.roles[role].signed.version:
            return True
        signed |= metadata.signed.targets
    return any(signed.get(path) != target for path, target in listed.items())


def _for_another_state(release: ReleaseFile, outdated: object) -> RejectedError:
    happened = "other releases were published, or withdrawn," if outdated else "a part"
    return RejectedError(
        f"{release.path} was signed for another state of the repository: {happened} "
        + ("since it was built" if outdated else "of it is published already"),
        means="published now, it would undo that; nothing was published",
        do="sign it again, it need not be built again: `updaterd release sign "
        f"{release.path.name} --from COPY` with a copy of public/metadata as it is now",
        code="signed_for_another_state",
    )


def _check_ours(
    release: ReleaseFile, repository: Repository, role: str, metadata: Metadata[Any]
) -> None:
    """Make sure that a key of this repository signed a role, whenever that was.

    Raises:
        _foreign: none did; what the role says is of no interest then.
    """
    judge: Root | Targets = repository.targets()
    try:
        verdict = judge.get_verification_result(
            role, metadata.signed_bytes, metadata.signatures
        )
    except (RepositoryError, ValueError):
        return  # no role of this product: refused for that
    if not verdict.signed:
        raise _foreign(release, role)


def _foreign(release: ReleaseFile, role: str) -> RejectedError:
    return RejectedError(
        f"{release.path}: {role} is not signed by its keys",
        means="it may be the file of another repository; or another key signed it, or "
        "it was changed since. Nothing was published",
        do="compare --repo and the file; sign it with the key that `updaterd release "
        f"keys list` shows for {role}",
        code="release_file_refused",
    )


def _check_signed(
    release: ReleaseFile, repository: Repository, role: str, metadata: Metadata[Any]
) -> None:
    """Make sure that a role's signatures count, now and for a while.

    Raises:
        RejectedError: they do not.
        BrokenError: there are not enough.
        _foreign: there are none.
    """
    judge: Root | Targets = repository.targets()
    keyids, threshold = repository.authority(role)
    try:
        judge.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        valid = len(metadata.signatures.keys() & set(keyids))
        if 0 < valid < threshold:
            raise BrokenError(
                f"{release.path}: {role} has {valid} of {threshold} signatures",
                means="no release of this product counts without all; nothing was "
                "published",
                do="take it to the place of the other key, and sign it there, too",
                code="missing_keys",
            ) from error
        raise _foreign(release, role) from error
    if metadata.signed.is_expired(repository.now):
        raise RejectedError(
            f"{release.path}: its signature expired at "
            f"{metadata.signed.expires:%Y-%m-%d %H:%M} UTC",
            means="machines would not accept it; nothing was published",
            do="check the clocks here and where it was signed; sign it again",
            code="metadata_expired",
        )


def _check_version(
    workspace: Workspace, repository: Repository, role: str, metadata: Metadata[Any]
) -> None:
    """Make sure that no other edition has this name already.

    Raises:
        RejectedError: a publication that died, or another signer, used it.
    """
    name = layout.role_file(role, metadata.signed.version)
    try:
        present = (workspace.metadata / name).read_bytes()
    except FileNotFoundError:
        return
    if present != repository.encoded(metadata):
        raise RejectedError(
            f"{name} is here already, and says something else",
            means="a publication of another file died here, or two machines sign "
            "with the same key; nothing was published",
            do="sign it again: the machine that signs never uses a version twice",
            code="signed_for_another_state",
        )


def _check_bundles(
    release: ReleaseFile, workspace: Workspace, fresh: Sequence[Manifest]
) -> None:
    """Make sure that all that machines are told of will be there, and nothing else.

    Raises:
        RejectedError: one is not, or there is one that nobody signed for.
    """
    carried = {
        member.sha256: member.length
        for member in (
            *release.of_kind(release_files.BLOB),
            *release.of_kind(release_files.ATTESTATION),
        )
    }
    for manifest in fresh:
        own = own_blobs(manifest)
        for blob in manifest.blobs:
            needed = blob.sha256 in own or blob in manifest.attestations
            size = carried.get(blob.sha256, -1)
            if not needed:
                size = _size(workspace.blob(blob.sha256))
            if size != blob.length:
                raise RejectedError(
                    f"{release.path}: the bundle {blob.sha256[:12]} that a manifest "
                    "names is "
                    + ("not in it" if needed else "not published here, as it says"),
                    means="machines could not fetch it; nothing was published",
                    do="copy the file again from where it was made",
                    code="release_file_refused",
                )
    bundles = {digest for manifest in fresh for digest in own_blobs(manifest)}
    attested = {entry.sha256 for manifest in fresh for entry in manifest.attestations}
    for kind, named in (
        (release_files.BLOB, bundles),
        (release_files.ATTESTATION, attested),
    ):
        for member in release.of_kind(kind):
            if member.sha256 not in named:
                raise RejectedError(
                    f"{release.path}: no signed manifest names the {kind} "
                    f"{member.sha256[:12]} that is in it",
                    means="somebody added it after it was signed; nothing was "
                    "published",
                    do="sign what the builder made again, and look at the way it took",
                    code="release_file_refused",
                )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
