"""Keys: made, kept encrypted, and turned into signers.

A key file is PKCS#8 in PEM (RFC 5958). Encrypted ones use PBES2 with scrypt (RFC
7914 section 7) and AES-256-CBC, which `openssl pkey` opens as well: no key depends
on updaterd for its recovery. `keys/keyring.json` lists public keys by name, and by
URI where each private one is: a file beside it, a token (`hsm:`), a Vault (`hv:`).
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from updaterd import durable
from updaterd.errors import BrokenError

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
"""16 MiB and about 0.2 s; OWASP's equal of N=2^17, p=1, within OpenSSL's 32 MiB."""

Passphrase = Callable[[str], bytes]
"""Asked for a key by name when an encrypted file is made or opened."""


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 128:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 + len(length))) + length + body


def _integer(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def encrypt_pem(der: bytes, passphrase: bytes) -> bytes:
    """Return a PKCS#8 key as encrypted PEM (RFC 8018 section 6.2, RFC 7914)."""
    salt, iv = secrets.token_bytes(16), secrets.token_bytes(16)
    key = hashlib.scrypt(
        passphrase, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32
    )
    pad = PKCS7(128).padder()
    cipher = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    sealed = cipher.update(pad.update(der) + pad.finalize()) + cipher.finalize()
    derivation = _der(
        0x30,
        _SCRYPT,
        _der(
            0x30,
            _der(4, salt),
            _integer(SCRYPT_N),
            _integer(SCRYPT_R),
            _integer(SCRYPT_P),
        ),
    )
    scheme = _der(0x30, _AES_256_CBC, _der(4, iv))
    algorithm = _der(0x30, _PBES2, _der(0x30, derivation, scheme))
    text = base64.b64encode(_der(0x30, algorithm, _der(4, sealed)))
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    label = b"ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([b"-----BEGIN " + label, *lines, b"-----END " + label, b""])


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
    """

    def __init__(self, folder: Path, passphrase: Passphrase | None = None) -> None:
        self._folder = folder
        self._passphrase = passphrase
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
        _write_private(self._folder / f"{name}.pem", signer, name, self._passphrase)
        self._signers[name] = signer
        return self.add(
            KeyEntry(name=name, public=signer.public_key, uri=f"file:{name}.pem")
        )

    def add(self, entry: KeyEntry) -> KeyEntry:
        """Enter a key whose private half is elsewhere, or replace its entry.

        Power cut: the old list or the new.
        """
        self._entries[entry.name] = entry
        self._save()
        return entry

    def remove(self, name: str) -> None:
        """Forget a key; its file stays, renamed by nobody, for the records.

        Power cut: the old list or the new.
        """
        self._entries.pop(name, None)
        self._save()

    def rename(self, old: str, new: str) -> None:
        """Give a key another name.

        Power cut: the old list or the new.
        """
        entry = self._entries.pop(old)
        self._entries[new] = KeyEntry(name=new, public=entry.public, uri=entry.uri)
        self._signers.pop(old, None)
        self._save()

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
            made = self._open(entry)
            if made is None:
                return None
            self._signers[entry.name] = made
        return self._signers[entry.name]

    def _open(self, entry: KeyEntry) -> Signer | None:
        kind, _, rest = entry.uri.partition(":")
        if kind == "file":
            path = self._folder / rest
            if not path.exists():
                return None  # kept offline
            return open_key(path, entry.public, entry.name, self._passphrase)
        if not kind:
            return None
        return _open_remote(entry, self._passphrase)


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


def private_pem(signer: CryptoSigner, passphrase: bytes | None) -> bytes:
    """Return the private key as PKCS#8 PEM, encrypted when there is a passphrase."""
    key = load_pem_private_key(signer.private_bytes, None)
    if passphrase is None:
        return signer.private_bytes
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encrypt_pem(der, passphrase)


def _write_private(
    path: Path, signer: CryptoSigner, name: str, ask: Passphrase | None
) -> None:
    durable.write_file(path, private_pem(signer, ask(name) if ask else None))


def open_key(
    path: Path, public: Key, name: str, passphrase: Passphrase | None
) -> CryptoSigner:
    """Return a signer from a key file.

    Raises:
        BrokenError: unreadable, wrong passphrase, or another key.
    """
    try:
        pem = path.read_bytes()
        secret = None
        if b"ENCRYPTED" in pem:
            if passphrase is None:
                raise BrokenError(f"{path} is encrypted", code="passphrase")
            secret = passphrase(name)
        if not isinstance(public, SSlibKey):
            raise BrokenError(f"{path}: unknown kind of key", code="bad_key")
        return CryptoSigner(load_pem_private_key(pem, secret), public)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BrokenError(
            f"cannot use the key file {path}: {error}",
            means="nothing was signed",
            do="check the passphrase and that the file belongs to this repository",
            code="bad_key",
        ) from error


def _open_remote(entry: KeyEntry, passphrase: Passphrase | None) -> Signer:
    """Return a signer for a key that never leaves its device or service.

    Raises:
        BrokenError: it cannot be reached; says what is missing.
    """

    def ask(_what: str) -> str:
        return passphrase(entry.name).decode() if passphrase else ""

    try:
        return Signer.from_priv_key_uri(entry.uri, entry.public, ask)
    except Exception as error:
        raise BrokenError(
            f"cannot use the key {entry.name} at {entry.uri}: {error}",
            means="nothing was signed",
            do="for hsm: install python-pkcs11 and set PYKCS11LIB; for hv: install "
            "hvac and set VAULT_ADDR and VAULT_TOKEN; for awskms: install boto3",
            code="key_unreachable",
        ) from error


def passphrase_from(
    *, file: Path | None, environ: Mapping[str, str], ask: Passphrase | None
) -> Passphrase:
    """Return where passphrases come from: a file, the environment, a person.

    Args:
        file: its first line; must not be readable for others.
        environ: `UPDATERD_PASSPHRASE_<KEY>`, then `UPDATERD_PASSPHRASE`.
        ask: prompts; None: nobody is there.
    """
    known: dict[str, bytes] = {}

    def find(name: str) -> bytes:
        if name not in known:
            known[name] = _find(name)
        return known[name]

    def _find(name: str) -> bytes:
        if file is not None:
            return _first_line(file)
        own = "UPDATERD_PASSPHRASE_" + name.upper().replace("-", "_")
        for variable in (own, "UPDATERD_PASSPHRASE"):
            if environ.get(variable):
                return environ[variable].encode()
        if ask is not None:
            return ask(name)
        raise BrokenError(
            f"the key {name} needs a passphrase and nobody is there to ask",
            do="use --passphrase-file or set UPDATERD_PASSPHRASE",
            code="passphrase",
        )

    return find


def _first_line(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise BrokenError(
                f"others may read the passphrase file {path}",
                do=f"chmod 600 {path}",
                code="passphrase",
            )
        line = path.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise BrokenError(
            f"cannot read the passphrase file: {error}", code="passphrase"
        ) from error
    if not line:
        raise BrokenError(f"the passphrase file {path} is empty", code="passphrase")
    return line
