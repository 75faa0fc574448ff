# SPDX-License-Identifier: Apache-2.0
"""Key files: encrypted, standard, and never opened by accident."""

import shutil
import subprocess

import pytest
from securesystemslib.signer import CryptoSigner

from updaterd.errors import BrokenError
from updaterd.release import announce
from updaterd.release.keys import files as key_files

pytestmark = pytest.mark.slow


def test_an_encrypted_key_opens_with_its_passphrase_only(tmp_path):
    """scrypt and AES-256: the right words open it, others are told apart."""
    signer = CryptoSigner.generate_ed25519()
    path = tmp_path / "k.pem"
    key_files.write_private(path, signer, "k", lambda _: b"right")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    opened = key_files.open_key(path, signer.public_key, "k", lambda _: b"right")
    assert opened.sign(b"x") == signer.sign(b"x")
    with pytest.raises(BrokenError) as caught:
        key_files.open_key(path, signer.public_key, "k", lambda _: b"wrong")
    assert caught.value.code == "bad_key"


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_an_encrypted_key_can_be_recovered_with_openssl(tmp_path):
    """Nobody needs updaterd to get at their own key."""
    signer = CryptoSigner.generate_ed25519()
    path = tmp_path / "k.pem"
    path.write_bytes(key_files.private_pem(signer, b"pass"))
    done = subprocess.run(
        ["openssl", "pkey", "-in", path, "-passin", "pass:pass"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == signer.private_bytes


def test_another_key_of_the_repository_is_refused(tmp_path):
    """A key file in another's place signs nothing."""
    path = tmp_path / "k.pem"
    key_files.write_private(path, CryptoSigner.generate_ed25519(), "k", None)
    public = CryptoSigner.generate_ed25519().public_key
    with pytest.raises(BrokenError):
        key_files.open_key(path, public, "k", None)


def test_passphrases_come_from_file_environment_or_a_person(tmp_path):
    """In this order; a file that others may read is refused."""
    file = tmp_path / "pass"
    file.write_bytes(b"from file\nsecond line\n")
    file.chmod(0o600)

    every = {"UPDATERD_PASSPHRASE": "e"}
    own = {**every, "UPDATERD_PASSPHRASE_ROOT_1": "own"}

    def find(file=None, ask=None, environ=None):
        find = key_files.passphrase_from(file=file, environ=environ or {}, ask=ask)
        return find("root-1")

    assert find(file=file, environ=every) == b"from file"
    assert find(environ=own) == b"own"
    assert find(environ=every) == b"e"
    assert find(ask=lambda name: name.encode()) == b"root-1"
    with pytest.raises(BrokenError):
        find()
    file.chmod(0o644)
    with pytest.raises(BrokenError):
        find(file=file)


def test_a_unit_gets_its_secrets_from_systemd(tmp_path):
    """LoadCredential=: the key's own first, whatever the mode; before people."""
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    find = key_files.passphrase_from(file=None, environ=environ, ask=None)
    with pytest.raises(BrokenError, match="no terminal to ask"):
        find("online")
    (tmp_path / "updaterd.passphrase").write_bytes(b"for all\n")
    (tmp_path / "updaterd.passphrase-online").write_bytes(b"for online")
    (tmp_path / "updaterd.token").write_bytes(b"token\n")
    (tmp_path / "updaterd.passphrase").chmod(0o444)
    find = key_files.passphrase_from(file=None, environ=environ, ask=lambda _: b"no")
    assert (find("online"), find("release-acme")) == (b"for online", b"for all")
    assert announce.read_token(None, environ) == "token"
    assert announce.read_token(None, {**environ, "UPDATERD_FEED_TOKEN": "t"}) == "t"


@pytest.mark.parametrize(
    "spoil",
    [lambda p: p.write_bytes(b"\n"), lambda p: p.mkdir()],
    ids=["empty", "folder"],
)
def test_a_credential_that_cannot_be_used_is_told(tmp_path, spoil):
    """Empty or no file: an error with its path, not a try without a passphrase."""
    spoil(tmp_path / "updaterd.passphrase")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with pytest.raises(BrokenError, match=r"updaterd\.passphrase") as caught:
        key_files.passphrase_from(file=None, environ=environ, ask=None)("online")
    assert caught.value.code == "credential"


def test_a_key_made_elsewhere_brings_only_its_public_half(tmp_path):
    """`keys generate` on another machine, `--public` here."""
    from updaterd.release.keys.keyring import read_public

    private, public = key_files.generate(tmp_path, "root-9", lambda _: b"p")
    entry = read_public(public, "root-9")
    signer = key_files.signer_from_file(private, lambda _: b"p")
    assert entry.public.keyid == signer.public_key.keyid
    assert entry.uri == ""
    with pytest.raises(BrokenError):
        key_files.generate(tmp_path, "root-9", lambda _: b"p")


def test_a_pin_is_never_looked_for_where_passphrases_are(tmp_path):
    """A token that is tried with another secret counts that, and locks."""
    (tmp_path / "updaterd.passphrase").write_bytes(b"of the key files\n")
    others = {
        "UPDATERD_PASSPHRASE": "of the key files",
        "UPDATERD_PASSPHRASE_RELEASE_ACME": "of the key files",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }

    def pin(**environ):
        environ = {**others, **environ}
        return key_files.Secrets(key_files.PIN, file=None, environ=environ, ask=None)

    with pytest.raises(BrokenError, match="UPDATERD_PIN") as caught:
        pin()("release-acme")
    assert caught.value.code == "pin"
    assert pin(UPDATERD_PIN="1234")("release-acme") == b"1234"
    own = pin(UPDATERD_PIN="1234", UPDATERD_PIN_RELEASE_ACME="9")
    assert own("release-acme") == b"9"
    (tmp_path / "updaterd.pin").write_bytes(b"77\n")
    assert pin()("release-acme") == b"77"


def test_a_passphrase_that_protects_nothing_is_refused_for_a_new_key(tmp_path):
    """Short ones are told; an old key with one still opens."""
    told = []

    def secrets(text):
        environ = {"UPDATERD_PASSPHRASE": text}
        return key_files.Secrets(
            key_files.PASSPHRASE, file=None, environ=environ, ask=None, warn=told.append
        )

    with pytest.raises(BrokenError) as caught:
        key_files.generate(tmp_path, "online", secrets("x"))
    assert caught.value.code == "weak_passphrase"
    assert not (tmp_path / "online.pem").exists()
    key_files.generate(tmp_path, "online", secrets("eight..."))
    assert "online has 8 characters" in told.pop()
    key_files.generate(tmp_path, "other", secrets("correct horse battery staple"))
    assert told == []
    key_files.generate(tmp_path, "old", lambda _: b"x")
    signer = key_files.signer_from_file(tmp_path / "old.pem", secrets("x"))
    assert signer.public_key.keyid
