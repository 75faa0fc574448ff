# SPDX-License-Identifier: Apache-2.0
"""The keyring: which keys there are, and signers for those that are here.

`keys/keyring.json` lists public keys by name, and by URI where each private one is:
a file beside it, a token (`hsm:`), a Vault (`hv:`), a cloud's KMS, or nowhere here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key, Signer

from updaterd import durable
from updaterd.errors import BrokenError
from updaterd.release.keys.files import Passphrase, open_key, write_private

RETIRED = "-old-"
"""Between a key's former name and its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key: its name, its public half, and where its private half is."""

    name: str
    public: Key
    uri: str


class Keyring:
    """The keys of one workspace, or the few that are on this machine.

    Args:
        folder: `keys/`, 0700.
        passphrase: None: key files are written and read without one (demo).
        pin: opens tokens; None: as key files are opened.
    """

    def __init__(
        self,
        folder: Path,
        passphrase: Passphrase | None = None,
        pin: Passphrase | None = None,
    ) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._pin = pin or passphrase
        self._signers: dict[str, Signer] = {}
        self._entries = dict(_read_entries(folder / "keyring.json"))

    def __iter__(self) -> Iterator[KeyEntry]:
        """Return the keys, in the order they were made."""
        return iter(self._entries.values())

    def __contains__(self, name: str) -> bool:
        """Tell whether there is a key of this name."""
        return name in self._entries

    def entry(self, name: str) -> KeyEntry:
        """Return the key called `name`.

        Raises:
            BrokenError: there is none.
        """
        if name not in self._entries:
            raise BrokenError(
                f"there is no key called {name!r} in {self._folder}",
                do="`updaterd release keys list` shows them",
                code="no_such_key",
            )
        return self._entries[name]

    def by_id(self, keyid: str) -> KeyEntry | None:
        """Return the key with this id, if it is known here."""
        return next((e for e in self if e.public.keyid == keyid), None)

    def ensure(self, name: str) -> KeyEntry:
        """Return the key called `name`, made now when there is none.

        Power cut: the file is there before the keyring names it; a file that it
        does not name is overwritten by the next run.
        """
        if name in self._entries:
            return self._entries[name]
        signer = CryptoSigner.generate_ed25519()
        public = signer.public_key
        uri = f"file:{name}.pem"
        if any(entry.uri == uri for entry in self):  # a retired key's file
            uri = f"file:{name}-{public.keyid[:8]}.pem"
        path = self._folder / uri.removeprefix("file:")
        write_private(path, signer, name, self._passphrase)
        self._signers[name] = signer
        return self.add(KeyEntry(name=name, public=public, uri=uri))

    def add(self, entry: KeyEntry) -> KeyEntry:
        """Enter a key whose private half is elsewhere, or replace its entry.

        Power cut: the old list or the new.
        """
        self._entries[entry.name] = entry
        self._save()
        return entry

    def retire(self, name: str) -> KeyEntry:
        """Free a key's name for its successor; the old one gets a number.

        Raises:
            BrokenError: there is no such key.

        Power cut: the old list or the new.
        """
        entry = self.entry(name)
        number = 1
        while f"{name}{RETIRED}{number}" in self._entries:
            number += 1
        self._signers.pop(name, None)
        del self._entries[name]
        self.add(replace(entry, name=f"{name}{RETIRED}{number}"))
        return entry

    def restore(self, retired: str, name: str) -> None:
        """Undo `retire`: what has the name meanwhile is forgotten, its file stays.

        Raises:
            BrokenError: there is no such key.

        Power cut: the old list or the new.
        """
        entry = self.entry(retired)
        del self._entries[retired]
        self._signers.pop(name, None)
        self.add(replace(entry, name=name))

    def _save(self) -> None:
        listing = {
            entry.name: {
                "keyid": entry.public.keyid,
                **entry.public.to_dict(),
                "uri": entry.uri,
            }
            for entry in self
        }
        text = json.dumps(listing, indent=1) + "\n"
        durable.write_file(self._folder / "keyring.json", text.encode())

    def signer(self, keyid: str) -> Signer | None:
        """Return a signer for the key; None: its private half is not here.

        Raises:
            BrokenError: it is here but cannot be opened.
        """
        entry = self.by_id(keyid)
        if entry is None:
            return None
        if entry.name not in self._signers:
            opened = self._open(entry)
            if opened is None:
                return None
            self._signers[entry.name] = opened
        return self._signers[entry.name]

    def is_here(self, keyid: str) -> bool:
        """Tell whether the private half can be used here, without opening it."""
        entry = self.by_id(keyid)
        if entry is None:
            return False
        kind, _, rest = entry.uri.partition(":")
        return (self._folder / rest).exists() if kind == "file" else bool(kind)

    def _open(self, entry: KeyEntry) -> Signer | None:
        kind, _, rest = entry.uri.partition(":")
        if kind == "file":
            path = self._folder / rest
            if not path.exists():
                return None  # kept offline
            return open_key(path, entry.public, entry.name, self._passphrase)
        if not kind:
            return None
        return _open_remote(entry, self._pin)


def _read_entries(path: Path) -> Iterator[tuple[str, KeyEntry]]:
    try:
        listing = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise BrokenError(f"cannot read {path}: {error}", code="keyring") from error
    for name, item in listing.items():
        fields = dict(item)
        uri, keyid = fields.pop("uri"), fields.pop("keyid")
        yield (
            name,
            KeyEntry(name=name, public=Key.from_dict(keyid, fields), uri=uri),
        )


def read_public(path: Path, name: str) -> KeyEntry:
    """Return the key in a `.pub.json`; its private half is elsewhere.

    Raises:
        BrokenError: it is none.
    """
    try:
        item = json.loads(path.read_bytes())
        key = Key.from_dict(item.pop("keyid"), item)
    except Exception as error:
        raise BrokenError(
            f"{path} is not a public key: {error}", code="bad_key"
        ) from error
    return KeyEntry(name=name, public=key, uri="")


def _open_remote(entry: KeyEntry, pin: Passphrase | None) -> Signer:
    """Return a signer for a key that never leaves its device or service.

    Raises:
        BrokenError: it cannot be reached; says what is missing.
    """

    def ask(_prompt: str) -> str:
        return pin(entry.name).decode() if pin else ""

    if entry.uri.startswith("hsm:"):
        ask("PIN")  # now: it is opened when it signs, which may be hours from here
    try:
        return Signer.from_priv_key_uri(entry.uri, entry.public, ask)
    except BrokenError:
        raise  # there is no PIN to try
    except Exception as error:
        raise BrokenError(
            f"cannot use the key {entry.name} at {entry.uri}: {named(error)}",
            means="nothing was signed",
            do="for hsm: install python-pkcs11 and set PYKCS11LIB; for hv: install "
            "hvac and set VAULT_ADDR and VAULT_TOKEN; for awskms: install boto3",
            code="key_unreachable",
        ) from error


def named(error: BaseException) -> str:
    """Return what an error says, with its name: some libraries' say nothing else."""
    text = str(error.__cause__ or error).strip()
    name = type(error.__cause__ or error).__name__
    return f"{name}: {text}" if text and text != name else name
