# SPDX-License-Identifier: Apache-2.0
"""What `release watch` would do to a channel that needs more keys than are here.

It signs with what is here and lays a proposal down, as `--propose` does: nothing is in
force before somebody with another key approves it. One file a channel. It stands while
it is the next edition of the channel and is still what was judged; a halt stands until
it is published or somebody deletes the file.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from updaterd.core import layout
from updaterd.core.dataclass import dataclass
from updaterd.core.plan import HALTED
from updaterd.core.watching import Action, Verdict

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.errors import BrokenError
    from updaterd.release.channels.approval import Proposal
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace

FOLDER = "proposals"
_ROOM = 1 << 16
"""Bytes that have to be free: a proposal has a few thousand."""
_LONGEST = 1 << 24
PREFIX = "propose_"
"""Before the act of a line of the audit log, and so of a webhook's event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """A proposal that lies there.

    Attributes:
        path: the file.
        action: what it would do.
        pointer: what the channel would say.
        has: signatures on it.
        needs: signatures that it takes.
        others: names of the keys that are not here and may sign it.
    """

    path: Path
    action: Action
    pointer: "ChannelPointer"
    has: int
    needs: int
    others: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return it for people."""
        act, lacking = self.action.value, self.needs - self.has
        if lacking <= 0:
            line = f"  {act} proposed, and signed by enough; it comes into force, "
            return [f"{line}here, by `updaterd release approve {self.path}`"]
        keys = "key" if lacking == 1 else "keys"
        line = (
            f"  {act} proposed, NOT in force: the channel needs {self.needs} "
            f"signatures and has {self.has}"
        )
        ask = (
            f"  ask who has {lacking} more {keys} ({', '.join(self.others)}): carry "
            f"{self.path} there, `updaterd release approve FILE`, then the same here"
        )
        return [line, ask]

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "file": str(self.path),
            "action": str(self.action),
            "has": self.has,
            "needs": self.needs,
            "ask": list(self.others),
        }

    @property
    def error(self) -> "BrokenError | None":
        """Return that a halt is not in force; None: it is a step, which can wait."""
        from updaterd.errors import BrokenError

        if self.action is not Action.HALT:
            return None
        where = f"{self.pointer.product}/{self.pointer.channel}"
        do = f"enough signed it: publish it, `updaterd release approve {self.path}`"
        if self.has < self.needs:
            do = (
                f"have it approved where {' or '.join(self.others)} is: `updaterd "
                "release approve FILE` there, then here"
            )
        return BrokenError(
            f"{where} has to be halted, and its halt is only proposed: {self.path}",
            means="machines that the rollout reaches already go on installing the "
            f"release; it goes to no others. {self.pointer.reason}",
            do=do,
            code="not_approved",
        )


def only_proposes(workspace: "Workspace", repository: "Repository", role: str) -> bool:
    """Tell whether a role needs more keys than are here, and one of them is here."""
    keyids, threshold = repository.authority(role)
    present = sum(workspace.keyring.is_here(keyid) for keyid in keyids)
    return 0 < present < threshold


def standing(
    workspace: "Workspace",
    repository: "Repository",
    before: "ChannelPointer",
    verdict: Verdict,
) -> Proposed | None:
    """Return what is proposed for a channel, if it is still what was judged.

    What is not, or is no proposal for the channel as it is, is deleted: nobody is to
    approve a step that the counts speak against by now.

    Raises:
        OSError: the disk refused.

    Power cut: the file is there, or it is not.
    """
    from updaterd.errors import RejectedError
    from updaterd.files import regular
    from updaterd.release.channels import approval

    path = _path(workspace, before)
    try:
        raw = regular.read(path, _LONGEST)
    except FileNotFoundError:
        return None
    try:
        proposal = approval.read(raw, repository, where=str(path))
    except RejectedError:
        path.unlink()
        return None
    action = _action_of(before, proposal.pointer)
    if action is Action.HALT or action is verdict.action:
        return _proposed(workspace, repository, proposal, path, action)
    path.unlink()
    return None


def prepare(workspace: "Workspace", repository: "Repository", role: str) -> None:
    """See that a proposal can be signed and laid down, before the log tells of it.

    Else each look would enter a line, and call people, for what nobody can approve.

    Raises:
        BrokenError: a key that is here cannot be opened.
        OSError: there is no room.

    Power cut: the folder is there, or it is not.
    """
    for keyid in repository.authority(role)[0]:
        workspace.keyring.signer(keyid)
    folder = workspace.folder / FOLDER
    folder.mkdir(exist_ok=True)
    with TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(_ROOM))


def propose(
    workspace: "Workspace",
    repository: "Repository",
    pointer: "ChannelPointer",
    action: Action,
) -> Proposed:
    """Sign with the keys that are here, and lay the proposal down.

    Args:
        workspace: locked; it can be signed (`prepare`).
        repository: where the change was made and its line entered; not to be committed.
        pointer: what the channel is to say.
        action: what that does.

    Raises:
        UpdaterError: a key cannot be used.
        OSError: the disk refused.

    Power cut: the file is there as it is to be, or as it was.
    """
    from updaterd import durable
    from updaterd.release.channels import approval

    raw = approval.propose(repository, pointer)
    path = _path(workspace, pointer)
    durable.write_file(path, raw, mode=0o644)
    keyids, threshold = repository.authority(
        layout.channel_role(pointer.product, pointer.channel)
    )
    present = sum(workspace.keyring.is_here(keyid) for keyid in keyids)
    return Proposed(
        path=path,
        action=action,
        pointer=pointer,
        has=present,
        needs=threshold,
        others=_others(workspace, repository, keyids),
    )


def _path(workspace: "Workspace", pointer: "ChannelPointer") -> Path:
    name = f"{pointer.product}.{pointer.channel}.proposal"
    return workspace.folder.absolute() / FOLDER / name


def _proposed(
    workspace: "Workspace",
    repository: "Repository",
    proposal: "Proposal",
    path: Path,
    action: Action,
) -> Proposed:
    keyids, threshold = repository.authority(proposal.role)
    signed = proposal.metadata.signatures
    return Proposed(
        path=path,
        action=action,
        pointer=proposal.pointer,
        has=len(signed),
        needs=threshold,
        others=_others(workspace, repository, [k for k in keyids if k not in signed]),
    )


def _others(
    workspace: "Workspace", repository: "Repository", keyids: "list[str]"
) -> tuple[str, ...]:
    return tuple(
        repository.key_name(keyid)
        for keyid in keyids
        if not workspace.keyring.is_here(keyid)
    )


def _action_of(before: "ChannelPointer", after: "ChannelPointer") -> Action | None:
    """Return what of `watch` a proposal is; None: somebody else's."""
    if (after.product, after.channel) != (before.product, before.channel):
        return None  # another channel's, copied here
    if before.plan is None or after.plan is None:
        return None
    if after.plan.state == HALTED and after.paused:
        return Action.HALT
    if after.plan.step == before.plan.step + 1:
        return Action.STEP
    if replace(after.plan, state=before.plan.state, since=0, reason="") == replace(
        before.plan, since=0, reason=""
    ):
        return Action.DONE
    return None
