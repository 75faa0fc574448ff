# SPDX-License-Identifier: Apache-2.0
"""Who may sign is changed: proposed here, signed here or elsewhere, published.

A change of keys is a new root, new targets (the delegations), or both. Where all
keys are at hand it is published at once. Where root keys are kept offline, as they
should be, the new files wait in `DIR/pending/`:

    export FOLDER     what is to be signed, to carry to each root key
    sign FILE         there, with that key; shows what it signs
    import FILE       back here; published when enough have signed

Roles whose keys changed are signed again in the same publication.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization.json import JSONSerializer

from updaterd import durable
from updaterd.core import layout
from updaterd.errors import BrokenError, RejectedError
from updaterd.release.keychange.offline import PRESENT, read
from updaterd.release.keys.keyring import RETIRED, KeyEntry, Keyring
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.published import versions
from updaterd.release.workspace import Workspace

OFFLINE = ("root", "targets")
Authority = dict[str, tuple[tuple[str, ...], int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A proposed file that lacks signatures."""

    role: str
    path: Path
    missing: str


def authorities(repository: Repository) -> Authority:
    """Return who may sign what: key ids and threshold of every role."""
    signers: Authority = {
        name: (tuple(role.keyids), role.threshold)
        for name, role in repository.root.roles.items()
        if name != "mirrors"
    }
    delegations = repository.targets().delegations
    for name, role in ((delegations and delegations.roles) or {}).items():
        signers[name] = (tuple(role.keyids), role.threshold)
    return signers


def propose(
    workspace: Workspace,
    repository: Repository,
    change: Callable[[Root, Targets], None],
) -> list[Waiting]:
    """Make a change of keys and publish it, or keep it where signatures lack.

    Returns:
        What waits for signatures; empty when it was published.

    Raises:
        BrokenError: another change is waiting, or it would leave a role without
            enough keys.

    Power cut: nothing is published before all of it is signed; a proposal that is
    not whole is made again by the same command.
    """
    check_none_pending(workspace)
    before = authorities(repository)
    texts = {role: _text(repository, role) for role in OFFLINE}
    try:
        change(repository.root, repository.targets())
    except ValueError as error:
        raise BrokenError(
            f"the keys cannot be changed like this: {error}",
            do="`updaterd release status` shows the roles, `keys list` the keys",
            code="bad_change",
        ) from error
    after = authorities(repository)
    _check(after)
    resign = {role for role in after if after[role] != before.get(role)}
    proposed = [role for role in OFFLINE if _text(repository, role) != texts[role]]
    if not proposed:
        return []
    if "targets" in resign and "targets" not in proposed:
        proposed.append("targets")
    for role in proposed:
        repository.sign(role, repository.renew(role), enough=False)
    files = {role: repository.roles[role] for role in proposed}
    waiting = _waiting(workspace, files)
    if waiting:
        _keep(workspace, files, resign)
        return waiting
    _publish(repository, files, resign)
    return []


def check_none_pending(workspace: Workspace) -> None:
    """Make sure that no other change waits.

    Raises:
        BrokenError: one does.
    """
    if (_pending(workspace) / "note").exists():
        raise BrokenError(
            f"another change of keys waits in {_pending(workspace)}",
            do="finish it with `updaterd release keys import`, or drop it with "
            "`updaterd release keys cancel`",
            code="change_pending",
        )


def _check(after: Authority) -> None:
    for role, (keyids, threshold) in after.items():
        if not 1 <= threshold <= len(keyids):
            raise BrokenError(
                f"{role} would have {len(keyids)} keys and a threshold of {threshold}",
                means="nobody could sign it",
                do="add keys before revoking, or lower the threshold",
                code="too_few_keys",
            )


def _text(repository: Repository, role: str) -> bytes:
    return JSONSerializer(compact=True).serialize(repository.roles[role])


def _pending(workspace: Workspace) -> Path:
    return workspace.folder / "pending"


def _keep(
    workspace: Workspace, files: dict[str, Metadata[Any]], resign: Iterable[str]
) -> None:
    folder = _pending(workspace)
    durable.make_dir(folder, mode=0o700)
    for role, metadata in files.items():
        durable.write_file(folder / layout.role_file(role), metadata.to_bytes())
    # last, so that half of a change is never taken for the whole
    note = {"resign": sorted(resign), "files": sorted(files)}
    durable.write_file(folder / "note", json.dumps(note).encode())


def _note(workspace: Workspace) -> dict[str, list[str]]:
    try:
        note: dict[str, list[str]] = json.loads(
            (_pending(workspace) / "note").read_bytes()
        )
    except (OSError, ValueError):
        return {"files": [], "resign": []}
    return note


def _load(workspace: Workspace) -> dict[str, Metadata[Any]]:
    return {
        role: read(_pending(workspace) / layout.role_file(role))
        for role in _note(workspace)["files"]
    }


def _old_root(workspace: Workspace) -> Metadata[Root]:
    folder = workspace.metadata
    newest = max(versions(folder, "root"))
    path = folder / layout.role_file("root", newest)
    return Metadata[Root].from_bytes(path.read_bytes())


def _waiting(workspace: Workspace, files: dict[str, Metadata[Any]]) -> list[Waiting]:
    """Return the files that the keys before, or the keys after, do not yet back."""
    old = _old_root(workspace).signed
    new: Root = files["root"].signed if "root" in files else old
    judges = {"root": (old, new), "targets": (new,)}
    lacking = []
    for role, file in files.items():
        for judge in judges[role]:
            try:
                judge.verify_delegate(role, file.signed_bytes, file.signatures)
            except UnsignedMetadataError:
                named = judge.roles[role]
                have = len(set(named.keyids) & set(file.signatures))
                which = "present" if judge is old else "new"
                missing = (
                    f"{have} of {named.threshold} signatures by the {which} {role} keys"
                )
                path = _pending(workspace) / layout.role_file(role)
                lacking.append(Waiting(role=role, path=path, missing=missing))
                break
    return lacking


def _publish(
    repository: Repository, files: dict[str, Metadata[Any]], resign: Iterable[str]
) -> None:
    for role, metadata in files.items():
        repository.adopt(role, metadata)
    for role in resign:
        if role in OFFLINE:
            continue
        if role in repository.roles:
            repository.touch(role)
        else:
            repository.begin(role, Targets())
    repository.commit()


def waiting(workspace: Workspace) -> list[Waiting]:
    """Return what waits for signatures."""
    return _waiting(workspace, _load(workspace))


def export(workspace: Workspace, folder: Path) -> list[Path]:
    """Copy what is to be signed into a folder, to be carried to the root keys.

    The present root goes along, below: it tells whose signature would count.

    Raises:
        BrokenError: nothing waits.
    """
    files = _load(workspace)
    if not files:
        raise BrokenError("no change of keys waits for signatures", code="no_change")
    durable.make_dir(folder)
    written = []
    for role, metadata in files.items():
        path = folder / layout.role_file(role)
        durable.write_file(path, metadata.to_bytes(), mode=0o644)
        written.append(path)
    durable.make_dir((folder / PRESENT).parent)
    present = _old_root(workspace).to_bytes()
    durable.write_file(folder / PRESENT, present, mode=0o644)
    return written


def take_in(
    workspace: Workspace, repository: Repository, paths: Sequence[Path]
) -> list[Waiting]:
    """Merge signatures made elsewhere; publish when there are enough.

    Returns:
        What still waits; empty when it was published.

    Raises:
        RejectedError: a file is not the one that was exported.
        BrokenError: nothing waits.

    Power cut: signatures merged so far are kept; the same import again goes on with
    what was published of it.
    """
    files = _load(workspace)
    if not files:
        raise BrokenError("no change of keys waits for signatures", code="no_change")
    for path in paths:
        signed = read(path)
        role = signed.signed.type
        proposal = files.get(role)
        if proposal is None or proposal.signed_bytes != signed.signed_bytes:
            raise RejectedError(
                f"{path} is not the file that was exported",
                means="its signatures do not count for the waiting change",
                do="export the change again, and sign that file",
                code="other_file",
            )
        proposal.signatures.update(signed.signatures)
    resign = _note(workspace)["resign"]
    _keep(workspace, files, resign)
    _check_fresh(repository, files)
    lacking = _waiting(workspace, files)
    if not lacking:
        _publish(repository, files, resign)
        cancel(workspace)
    return lacking


def _check_fresh(repository: Repository, files: dict[str, Metadata[Any]]) -> None:
    for role, metadata in files.items():
        now, version = repository.roles[role], metadata.signed.version
        published = repository.edition(role, version)
        if published is not None and published.signed_bytes == metadata.signed_bytes:
            continue  # this very change: its publication died, and goes on
        newest = now.signed.version
        if published or version <= newest or (role == "root" and version != newest + 1):
            raise RejectedError(
                f"another {role} was published since this change was made",
                do="`updaterd release keys cancel`, then make the change again",
                code="change_outdated",
            )


def cancel(workspace: Workspace) -> None:
    """Drop the waiting change.

    Power cut: what is left of it counts for nothing; the next run drops it.
    """
    for path in sorted(_pending(workspace).glob("*")):  # the note is first
        path.unlink()


def successor(workspace: Workspace, repository: Repository, name: str) -> KeyEntry:
    """Return the key in use that is to be replaced.

    Raises:
        BrokenError: a change waits, or no key of that name signs anything.
    """
    check_none_pending(workspace)
    give_back(workspace, repository)
    entry = workspace.keyring.entry(name)
    if entry.public.keyid in _used(repository):
        return entry
    raise BrokenError(
        f"the key {name} signs for no role",
        do="`updaterd release keys list` shows what each key signs",
        code="unused_key",
    )


def give_back(workspace: Workspace, repository: Repository) -> None:
    """Give keys in use the names that a change took from them which came to nothing.

    What was made in their place signs nothing, and is forgotten.

    Power cut: some have their names; the next run gives back the others'.
    """
    used = _used(repository)
    keyring = workspace.keyring
    for entry in list(keyring):
        name, retired, _ = entry.name.rpartition(RETIRED)
        if not retired or entry.public.keyid not in used:
            continue
        if name not in keyring or keyring.entry(name).public.keyid not in used:
            keyring.restore(entry.name, name)


def _used(repository: Repository) -> set[str]:
    return {keyid for keyids, _ in authorities(repository).values() for keyid in keyids}


def names_of(keyring: Keyring, keyids: Iterable[str]) -> list[str]:
    """Return the names of keys, or the beginning of their ids."""
    entries = ((keyring.by_id(keyid), keyid) for keyid in keyids)
    return [entry.name if entry else keyid[:12] for entry, keyid in entries]
