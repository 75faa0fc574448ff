# SPDX-License-Identifier: Apache-2.0
"""Keys that never leave their device or service: tokens, Vault, cloud KMS.

Signing through them is securesystemslib's work; here is how their public half gets
into the keyring. What each needs besides updaterd is in docs/publisher.md.
"""

from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.signer import Key

from updaterd.errors import BrokenError
from updaterd.release.keys.files import Passphrase
from updaterd.release.keys.keyring import KeyEntry, named

Ask = Callable[[str], str]


def _hsm(rest: str, query: str, ask: Ask) -> tuple[str, Key]:
    from securesystemslib.signer import HSMSigner  # noqa: PLC0415

    label = dict(parse_qsl(query)).get("label")
    return HSMSigner.import_(int(rest) if rest else None, label, ask)


def _vault(rest: str, _query: str, _ask: Ask) -> tuple[str, Key]:
    from securesystemslib.signer import VaultSigner  # noqa: PLC0415

    return VaultSigner.import_(rest)


def _aws(rest: str, _query: str, _ask: Ask) -> tuple[str, Key]:
    from securesystemslib.signer import AWSSigner  # noqa: PLC0415

    return AWSSigner.import_(rest)


def _gcp(rest: str, _query: str, _ask: Ask) -> tuple[str, Key]:
    from securesystemslib.signer import GCPSigner  # noqa: PLC0415

    return GCPSigner.import_(rest)


_KINDS: dict[str, Callable[[str, str, Ask], tuple[str, Key]]] = {
    "hsm": _hsm,
    "hv": _vault,
    "awskms": _aws,
    "gcpkms": _gcp,
}


def find_key(uri: str, name: str, pin: Passphrase) -> KeyEntry:
    """Return the key that a URI names, asked for at its device or service.

    Raises:
        BrokenError: no such kind, or it cannot be reached.
    """
    parts = urlsplit(uri)
    read = _KINDS.get(parts.scheme)
    if read is None:
        raise BrokenError(
            f"{uri!r:.80} names no known kind of key",
            do=f"use one of {', '.join(kind + ':' for kind in _KINDS)}",
            code="bad_key_uri",
        )
    try:
        location, public = read(
            parts.path, parts.query, lambda _prompt: pin(name).decode()
        )
    except BrokenError:
        raise  # there is no PIN to try
    except Exception as error:
        raise BrokenError(
            f"cannot get the public key of {uri}: {named(error)}",
            means="nothing was changed",
            do="the publisher's guide (publisher.md) says what each kind needs",
            code="key_unreachable",
        ) from error
    return KeyEntry(name=name, public=public, uri=location)
