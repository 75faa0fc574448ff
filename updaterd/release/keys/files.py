# SPDX-License-Identifier: Apache-2.0
"""Key files and passphrases.

A key file is PKCS#8 in PEM (RFC 5958). Encrypted ones use PBES2 with scrypt (RFC
7914 section 7) and AES-256-CBC, which `openssl pkey` opens as well: no key depends
on updaterd for its recovery.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
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
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from updaterd import durable
from updaterd.errors import BrokenError
from updaterd.release.keys.credentials import credential

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
"""16 MiB and about 0.2 s; OWASP's equal of N=2^17, p=1, within OpenSSL's 32 MiB."""

CREDENTIAL = "updaterd.passphrase"

SHORTEST, ADVISED = 8, 15
"""Characters of a passphrase: what is refused below, and told to be little. A key file
is guessed at offline, at 0.2 s a try and core."""

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


def private_pem(signer: CryptoSigner, passphrase: bytes | None) -> bytes:
    """Return the private key as PKCS#8 PEM, encrypted when there is a passphrase."""
    key = load_pem_private_key(signer.private_bytes, None)
    if passphrase is None:
        return signer.private_bytes
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encrypt_pem(der, passphrase)


def write_private(
    path: Path, signer: CryptoSigner, name: str, ask: Passphrase | None
) -> None:
    """Write a private key, encrypted when there is somebody to ask.

    Raises:
        BrokenError: the passphrase is too short to protect it.

    Power cut: the file is whole or absent.
    """
    secret = None
    if ask is not None:
        secret = ask.new(name) if isinstance(ask, Secrets) else ask(name)
    durable.write_file(path, private_pem(signer, secret))


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


def generate(folder: Path, name: str, passphrase: Passphrase) -> tuple[Path, Path]:
    """Make an encrypted key file and its public half; return their paths.

    Raises:
        BrokenError: a key of this name is there.
    """
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.json"
    if private.exists():
        raise BrokenError(f"{private} exists", do="choose another name", code="exists")
    durable.make_dir(folder, mode=0o700)
    signer = CryptoSigner.generate_ed25519()
    write_private(private, signer, name, passphrase)
    key = signer.public_key
    text = json.dumps({"keyid": key.keyid, **key.to_dict()}) + "\n"
    durable.write_file(public, text.encode(), mode=0o644)
    return private, public


def signer_from_file(path: Path, passphrase: Passphrase) -> CryptoSigner:
    """Return a signer from a key file alone, as at an offline place.

    Raises:
        BrokenError: unreadable, or the wrong passphrase.
    """
    name = path.stem
    try:
        pem = path.read_bytes()
        secret = passphrase(name) if b"ENCRYPTED" in pem else None
        return CryptoSigner(load_pem_private_key(pem, secret))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BrokenError(
            f"cannot use the key file {path}: {error}",
            means="nothing was signed",
            do="check the passphrase",
            code="bad_key",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of secret, and where it may stand.

    Attributes:
        noun: for people.
        variable: of the environment; `<variable>_<KEY>` for one key comes first.
        credential: of the unit; `<credential>-<key>` for one key comes first.
        option: of the command line.
    """

    noun: str
    variable: str
    credential: str
    option: str


PASSPHRASE = Kind(
    noun="passphrase",
    variable="UPDATERD_PASSPHRASE",
    credential=CREDENTIAL,
    option="--passphrase-file",
)
PIN = Kind(
    noun="PIN",
    variable="UPDATERD_PIN",
    credential="updaterd.pin",
    option="--pin-file",
)
"""Of a token. Apart from passphrases: a token that is tried with another secret counts
that as a wrong PIN, and locks after a few."""


class Secrets:
    """Where the secrets of one kind come from: a file, the environment, a person.

    Args:
        kind: what they are.
        file: its first line; must not be readable for others.
        environ: the process's, credentials of its unit included.
        ask: prompts; None: nobody is there.
        ask_new: prompts for one that is about to be made.
        warn: is told what is weak.
    """

    def __init__(  # noqa: PLR0913 # each a place of its own
        self,
        kind: Kind,
        *,
        file: Path | None,
        environ: Mapping[str, str],
        ask: Passphrase | None,
        ask_new: Passphrase | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._kind = kind
        self._file = file
        self._environ = environ
        self._ask = ask
        self._ask_new = ask_new or ask
        self._warn = warn
        self._known: dict[str, bytes] = {}

    def __call__(self, name: str) -> bytes:
        """Return the secret of a key.

        Raises:
            BrokenError: there is none.
        """
        if name not in self._known:
            self._known[name] = self._find(name, self._ask)
        return self._known[name]

    def new(self, name: str) -> bytes:
        """Return the secret of a key that is about to be made.

        Raises:
            BrokenError: there is none, or it is too short to protect anything.
        """
        if name not in self._known:
            self._known[name] = self._find(name, self._ask_new)
        secret = self._known[name]
        length = len(secret.decode("utf-8", "replace"))
        if length < SHORTEST:
            raise BrokenError(
                f"the passphrase for the new key {name} has {length} characters",
                means="somebody who gets the file could guess it; no key was made",
                do=f"use at least {SHORTEST}, better {ADVISED}: several words do",
                code="weak_passphrase",
            )
        if length < ADVISED and self._warn is not None:
            self._warn(
                f"the passphrase for the new key {name} has {length} characters; "
                f"{ADVISED} or more are hard to guess, as several words are"
            )
        return secret

    def _find(self, name: str, ask: Passphrase | None) -> bytes:
        if self._file is not None:
            return _first_line(self._file, self._kind)
        kind = self._kind
        own = f"{kind.variable}_{name.upper().replace('-', '_')}"
        for variable in (own, kind.variable):
            if self._environ.get(variable):
                return self._environ[variable].encode()
        secret = credential(self._environ, f"{kind.credential}-{name}", kind.credential)
        if secret is not None:
            return secret
        if ask is not None:
            return ask(name)
        raise BrokenError(
            f"the key {name} needs a {kind.noun} and there is no terminal to ask for "
            "it",
            do=f"use {kind.option}, set {kind.variable}, or give the unit "
            f"LoadCredential={kind.credential}",
            code="passphrase" if kind is PASSPHRASE else "pin",
        )


def passphrase_from(
    *, file: Path | None, environ: Mapping[str, str], ask: Passphrase | None
) -> Passphrase:
    """Return where passphrases come from: a file, the environment, a person.

    Args:
        file: its first line; must not be readable for others.
        environ: `UPDATERD_PASSPHRASE_<KEY>`, then `UPDATERD_PASSPHRASE`, then the
            unit's credentials `updaterd.passphrase-<key>`, `updaterd.passphrase`.
        ask: prompts; None: nobody is there.
    """
    return Secrets(PASSPHRASE, file=file, environ=environ, ask=ask)


def _first_line(path: Path, kind: Kind) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise BrokenError(
                f"others may read the {kind.noun} file {path}",
                do=f"chmod 600 {path}",
                code="passphrase",
            )
        line = path.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    except OSError as error:
        raise BrokenError(
            f"cannot read the {kind.noun} file: {error}", code="passphrase"
        ) from error
    if not line:
        raise BrokenError(f"the {kind.noun} file {path} is empty", code="passphrase")
    return line
