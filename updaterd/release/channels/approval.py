# SPDX-License-Identifier: Apache-2.0
"""A change of a channel that one key proposes, and others must approve.

Where a channel's role asks for two signatures, no key alone changes what it offers. A
proposal is the next edition of that role, signed by some of its keys: a file that goes
from one machine to the next, each of which adds what it can. Nothing is published
before enough have signed, and nothing ever that was proposed for another state of the
channel.
"""

from dataclasses import dataclass
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, TargetFile, Targets

from updaterd.core import channel as channels
from updaterd.core import layout
from updaterd.core.channel import ChannelPointer
from updaterd.core.json_fields import Fields, encode
from updaterd.errors import BrokenError, MalformedError, RejectedError
from updaterd.release.keys.keyring import Keyring
from updaterd.release.repository import signing
from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.metadata import Repository

MAX_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A change that waits for signatures.

    Attributes:
        role: of the channel.
        metadata: its next edition.
        target: the pointer's file, as that lists it.
        pointer: what the channel is to say.
        threshold: signatures that it needs.
    """

    role: str
    metadata: Metadata[Any]
    target: TargetFile
    pointer: ChannelPointer
    threshold: int

    @property
    def missing(self) -> int:
        """Return how many signatures it still needs."""
        return max(0, self.threshold - len(self.metadata.signatures))

    def encode(self) -> bytes:
        """Return the file."""
        return Repository.encoded(self.metadata)


def propose(repository: Repository, pointer: ChannelPointer) -> bytes:
    """Return the proposal to say this, signed by the keys that are here.

    Args:
        repository: where the change was made, and which is not to be committed.
        pointer: what its channel is to say.

    Raises:
        MissingKeysError: none of the role's keys is here.
        BrokenError: one cannot be used.
    """
    role = layout.channel_role(pointer.product, pointer.channel)
    repository.touch(role)
    metadata = repository.renew(role)
    repository.sign(role, metadata, enough=False)
    if not metadata.signatures:
        repository.require_keys(role)
    return Repository.encoded(metadata)


def read(raw: bytes, repository: Repository, *, where: str) -> Proposal:
    """Return a proposal, if it may become the next edition of its channel.

    Args:
        raw: the file.
        repository: as published.
        where: what the file is called.

    Raises:
        RejectedError: it is none, none of the role's keys signed it, or the channel has
            changed since.
        _refused: the former.
    """
    metadata, target, pointer = _parsed(raw, where)
    role = layout.channel_role(pointer.product, pointer.channel)
    present = repository.targets(role)
    _, threshold = repository.authority(role)
    if metadata.signed == present:
        raise RejectedError(
            f"{where} is published already, as {role} version {present.version}",
            means="nothing is left to be signed",
            do="delete the file; if machines were not told: `updaterd release refresh`",
            code="proposal_outdated",
        )
    # not a later one either: whoever holds it back could have it count in a state of
    # the channel that nobody had in mind who signed
    if metadata.signed.version != present.version + 1:
        raise RejectedError(
            f"{where} is {role} version {metadata.signed.version}, and version "
            f"{present.version} is published",
            means="it was not made for the channel as it is; approving it could undo "
            "what was decided since",
            do="look at the channel (`updaterd release status`), and propose it again",
            code="proposal_outdated",
        )
    if metadata.signed.is_expired(repository.now):
        raise RejectedError(
            f"{where} expired on {metadata.signed.expires:%Y-%m-%d}",
            means="no machine would take it",
            do="propose it again",
            code="proposal_outdated",
        )
    valid = signing.valid(repository, role, metadata)
    if not valid:
        raise _refused(where, f"no key of {role} signed it")
    metadata.signatures.clear()
    metadata.signatures.update(valid)
    return Proposal(
        role=role,
        metadata=metadata,
        target=target,
        pointer=pointer,
        threshold=threshold,
    )


def check_there(proposal: Proposal, catalog: Catalog, *, where: str) -> None:
    """Refuse to offer what was withdrawn since; a channel that stands is left alone.

    Raises:
        RejectedError: a release that it would newly offer is not there any more.
    """
    seqs, _ = catalog.releases()
    offered = {
        offer.version for offer in catalog.pointer(proposal.pointer.channel).releases
    }
    for offer in proposal.pointer.releases:
        if offer.version not in offered and seqs.get(offer.version) != offer.seq:
            raise RejectedError(
                f"{where} offers {offer.version} (seq {offer.seq}), and "
                f"{catalog.product} has no such release any more",
                means="it was withdrawn since; approving it would undo that",
                do="look at the releases (`updaterd release status`), and propose "
                "another",
                code="proposal_outdated",
            )


def _parsed(raw: bytes, where: str) -> tuple[Metadata[Any], TargetFile, ChannelPointer]:
    """Return what a proposal says, checked as far as it goes without a repository.

    Raises:
        RejectedError: it is none.
        _refused: that refusal.
    """
    if len(raw) > MAX_BYTES:
        raise _refused(where, "it is too large")
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(raw)
    except RepositoryError as error:
        raise _refused(where, "it is no signed role") from error
    signed = metadata.signed
    if not isinstance(signed, Targets) or signed.delegations is not None:
        raise _refused(where, "it is the role of no channel")
    if len(signed.targets) != 1:
        raise _refused(where, "it lists something else than one channel")
    ((path, target),) = signed.targets.items()
    custom = target.unrecognized_fields.get("custom")
    if not isinstance(custom, dict):
        raise _refused(where, "it says nothing of a channel")
    try:
        item = Fields(custom, where)
        pointer = channels.parse_custom(
            item, product=item.text("product"), channel=item.text("channel")
        )
        target.verify_length_and_hashes(encode(custom))
    except (MalformedError, RepositoryError) as error:
        raise _refused(where, "no machine would take what it says") from error
    # who signs must have seen all of it, whatever other updaterds make of the rest
    if pointer.as_custom() != custom or set(target.unrecognized_fields) != {"custom"}:
        raise _refused(where, "it says what this updaterd does not know")
    if path != layout.channel(pointer.product, pointer.channel):
        raise _refused(where, f"it says {path} of {pointer.product}/{pointer.channel}")
    return metadata, target, pointer


def approve(proposal: Proposal, repository: Repository, keyring: Keyring) -> list[str]:
    """Add the signatures of keys that are here, as far as they are needed.

    Returns:
        The names of the keys that signed.

    Raises:
        BrokenError: a key cannot be used.
    """
    names = []
    for keyid in repository.authority(proposal.role)[0]:
        if not proposal.missing:
            break
        signer = keyring.signer(keyid)
        if keyid not in proposal.metadata.signatures and signer is not None:
            signing.sign_one(proposal.metadata, signer, proposal.role)
            names.append(repository.key_name(keyid))
    return names


def publish(proposal: Proposal, repository: Repository, catalog: Catalog) -> None:
    """Publish what enough keys have signed.

    Raises:
        BrokenError: not enough have; or the snapshot cannot be signed here.
        MissingKeysError: the latter.
        TransientError: another publisher came first.

    Power cut: as `Repository.commit`; the same command publishes it.
    """
    if proposal.missing:
        raise BrokenError(
            f"{proposal.role} needs {proposal.missing} more signature(s)",
            means="nothing was published",
            do="carry the file to where another of its keys is: `updaterd release "
            "approve FILE`",
            code="not_approved",
        )
    repository.require_keys("snapshot", "timestamp")
    metadata = proposal.metadata
    repository.targets().verify_delegate(
        proposal.role, metadata.signed_bytes, metadata.signatures
    )
    catalog.take(proposal.role, metadata, proposal.target)
    repository.commit()


def _refused(where: str, cause: str) -> RejectedError:
    return RejectedError(
        f"{where} is no proposal that could be approved: {cause}",
        means="nothing was signed or published",
        do="have it made again: `updaterd release publish ... --propose FILE`",
        code="proposal_refused",
    )
