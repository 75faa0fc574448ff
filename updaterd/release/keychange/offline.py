# SPDX-License-Identifier: Apache-2.0
"""What is done where a root key is kept: read a file, sign it, without a repository."""

from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from updaterd import durable
from updaterd.core import layout
from updaterd.errors import BrokenError
from updaterd.release.keys.files import Passphrase, signer_from_file

PRESENT = Path(".present", layout.ROOT)
"""The root that counts now, beside what is to be signed: where no `*` finds it, so
that nobody signs it or takes it back by mistake."""


def read(path: Path) -> Metadata[Any]:
    """Return a file to sign.

    Raises:
        BrokenError: it is no metadata.
    """
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
    except Exception as error:
        raise BrokenError(
            f"{path} is not a file to sign: {error}", code="not_metadata"
        ) from error
    return metadata


def sign(path: Path, key_file: Path, passphrase: Passphrase) -> None:
    """Add one key's signature to a file; needs no repository.

    Raises:
        BrokenError: the file or the key cannot be used, or the key has no say in it.

    Power cut: the old file or the new.
    """
    metadata = read(path)
    signer = signer_from_file(key_file, passphrase)
    _check_say(path, metadata, signer.public_key.keyid)
    metadata.sign(signer, append=True)
    durable.write_file(path, metadata.to_bytes(), mode=0o644)


def describe(path: Path) -> list[str]:
    """Return, for the person who signs, what a file says.

    Raises:
        BrokenError: it is no metadata.
    """
    signed = read(path).signed
    lines = [
        f"{signed.type} version {signed.version}, expires {signed.expires:%Y-%m-%d}"
    ]
    if isinstance(signed, Root):
        for name, role in signed.roles.items():
            keys = ", ".join(keyid[:12] for keyid in role.keyids)
            lines.append(f"  {name}: {role.threshold} of {len(role.keyids)}: {keys}")
    elif isinstance(signed, Targets) and signed.delegations:
        for name, delegated in (signed.delegations.roles or {}).items():
            keys = ", ".join(keyid[:12] for keyid in delegated.keyids)
            paths = ", ".join(delegated.paths or [])
            lines.append(
                f"  {name}: {delegated.threshold} of {len(delegated.keyids)}: "
                f"{keys}; {paths}"
            )
    return lines


def _check_say(path: Path, metadata: Metadata[Any], keyid: str) -> None:
    """Make sure that a key's signature would count, as far as can be told here.

    A root is judged by the keys before and after it, targets by those after it.

    Raises:
        BrokenError: it would not.
    """
    present = path.parent / PRESENT
    if not present.exists():
        return  # carried here without what `export` put beside it
    judges = [read(present).signed]
    role, new = metadata.signed.type, path.with_name(layout.ROOT)
    if role == Root.type:
        judges.append(metadata.signed)
    elif new.exists():
        judges = [read(new).signed]
    for judge in judges:
        named = judge.roles.get(role) if isinstance(judge, Root) else None
        if named is not None and keyid in named.keyids:
            return
    raise BrokenError(
        f"the key {keyid[:12]} has no say in {path}",
        means="its signature would not count; nothing was signed",
        do="sign with one that `updaterd release keys list` shows for this role",
        code="no_say",
    )
