# SPDX-License-Identifier: Apache-2.0
"""Signing one file with the keys that are here, and saying which are not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata

from updaterd.core import layout
from updaterd.errors import BrokenError
from updaterd.release.keys.keyring import Keyring, named

if TYPE_CHECKING:
    from updaterd.release.repository.published import Published


class MissingKeysError(BrokenError):
    """Not enough of a role's keys are on this machine."""

    code = "missing_keys"


def sign(
    metadata: Metadata[Any],
    role: str,
    keyids: Sequence[str],
    keyring: Keyring,
    *,
    most: int | None,
) -> None:
    """Replace a file's signatures by those of the keys that are here.

    Args:
        metadata: the file.
        role: whose it is.
        keyids: of the keys that may sign it, the first ones preferred.
        keyring: keys that are here.
        most: signatures to make; None: as many as can be.

    Raises:
        BrokenError: a key that is here cannot be used.
    """
    metadata.signatures.clear()
    for keyid in keyids:
        if most is not None and len(metadata.signatures) >= most:
            break
        signer = keyring.signer(keyid)
        if signer is not None:
            sign_one(metadata, signer, role)


def require(
    role: str, keyids: Sequence[str], threshold: int, have: int, keyring: Keyring
) -> None:
    """Insist on a role's threshold.

    Raises:
        MissingKeysError: fewer signatures are there, or can be made here.
    """
    if have >= threshold:
        return
    entries = (keyring.by_id(keyid) for keyid in keyids)
    absent = ", ".join(
        entry.name
        for entry in entries
        if entry is not None and not keyring.is_here(entry.public.keyid)
    )
    if threshold > 1 and layout.is_channel(role):
        do = (
            "propose the change with the key that is here: the same command with "
            "--propose FILE, then `updaterd release approve FILE` where the other key "
            "is, then here; in place of `push`: `updaterd release add`, then `publish "
            "--propose FILE`; in place of `yank`: `publish --propose FILE` of what is "
            "to come instead"
        )
    else:
        do = (
            "bring the keys here, or sign elsewhere (`updaterd release keys --help`); "
            "one that is lost is replaced: `updaterd release keys rotate`; an import "
            "that was cut short is run again"
        )
    raise MissingKeysError(
        f"{role} needs {threshold} signatures, {have} of its keys are here"
        + (f" (not here: {absent})" if absent else ""),
        means="nothing was published",
        do=do,
    )


def valid(
    repository: "Published", role: str, metadata: Metadata[Any]
) -> dict[str, Any]:
    """Return the signatures of a role that are right, and by keys that count."""
    keys = repository.targets().delegations
    return {
        keyid: signature
        for keyid, signature in metadata.signatures.items()
        if keys is not None
        and keyid in repository.authority(role)[0]
        and _is_valid(keys.keys[keyid], signature, metadata.signed_bytes)
    }


def _is_valid(key: Any, signature: Any, data: bytes) -> bool:
    try:
        key.verify_signature(signature, data)
    except Exception:  # noqa: BLE001 - each scheme has errors of its own
        return False
    return True


def sign_one(metadata: Metadata[Any], signer: Signer, role: str) -> None:
    """Add one key's signature to a file.

    Raises:
        BrokenError: the key cannot be used.
    """
    try:
        metadata.sign(signer, append=True)
    except Exception as error:  # each device and service has errors of its own
        raise BrokenError(
            f"cannot sign {role}: {named(error)}",
            means="nothing was published",
            do="check the token's PIN (UPDATERD_PIN, --pin-file; it locks after a few "
            "wrong ones), or that the service can be reached",
            code="signing_failed",
        ) from error
