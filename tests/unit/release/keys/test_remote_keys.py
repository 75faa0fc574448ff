# SPDX-License-Identifier: Apache-2.0
"""Keys that never leave their device or service: a real token, a Vault's interface."""

import base64
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fakes.origin import Origin
from fakes.repository import Client, Publisher
from fakes.tools import need

from updaterd.errors import BrokenError
from updaterd.release import workspace
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import edits
from updaterd.release.keys import files as key_files
from updaterd.release.keys import remote

pytestmark = pytest.mark.slow

LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
)


def publishes_with(uri: str, tmp_path: Path, passphrase, pin=None):
    """Move the release key to `uri`, publish with it, look as a machine does."""
    publisher = Publisher(tmp_path / "ops", profile="prod", passphrase=passphrase)
    publisher.space = workspace.Workspace(publisher.folder, passphrase, pin)
    publisher.release("1.0.0")
    ring = publisher.space.keyring
    old = ring.retire("release-acme")
    new = ring.add(remote.find_key(uri, "release-acme", pin or passphrase))
    change = edits.replace_key(old.public, new.public)
    assert keychange.propose(publisher.space, publisher.open(), change) == []
    publisher.release("1.1.0")
    signatures = publisher.open().roles["acme.releases"].signatures
    assert list(signatures) == [new.public.keyid]
    with Origin(publisher.public) as origin:
        client = Client(tmp_path / "trust", publisher.bootstrap, origin, demo=False)
        assert client.offered() == "1.1.0"
        client.refresh().manifest("acme", "1.1.0", "linux-x86_64")
        client.close()


def test_a_release_key_on_a_pkcs11_token_signs(tmp_path, monkeypatch):
    """SoftHSM, the same interface as a real token: the PIN opens it, it signs."""
    pkcs11 = pytest.importorskip("pkcs11")
    tool = need("softhsm2-util")
    library = next((path for path in LIBRARIES if Path(path).exists()), None)
    if library is None:
        pytest.skip("no SoftHSM library where it is looked for")
    (tmp_path / "tokens").mkdir()
    conf = tmp_path / "softhsm.conf"
    conf.write_text(f"directories.tokendir = {tmp_path}/tokens\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(conf))
    monkeypatch.setenv("PYKCS11LIB", library)
    subprocess.run(
        [tool, "--init-token", "--free", "--label", "release", "--pin", "1234",
         "--so-pin", "4321"],
        check=True, capture_output=True,
    )  # fmt: skip
    from pkcs11.util.ec import encode_named_curve_parameters

    (token,) = pkcs11.lib(library).get_tokens(token_label="release")  # noqa: S106
    with token.open(rw=True, user_pin="1234") as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC,
            {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")},
            local=True,
        )
        parameters.generate_keypair(store=True, id=b"\x02", label="release")
    phrase = b"correct horse battery staple"
    publishes_with(
        "hsm:2?label=release", tmp_path, lambda _: phrase, pin=lambda _: b"1234"
    )
    other = Publisher(tmp_path / "ops", profile="prod", passphrase=lambda _: phrase)
    with pytest.raises(BrokenError, match="PinIncorrect") as caught:
        other.release("1.2.0")
    assert "locks" in caught.value.do
    nobody = key_files.Secrets(key_files.PIN, file=None, environ={}, ask=None)
    other.space = workspace.Workspace(other.folder, lambda _: phrase, nobody)
    with pytest.raises(BrokenError, match="PIN") as caught:
        other.open().require_keys("acme.releases")
    assert caught.value.code == "pin", "before anything is built"


class Vault(ThreadingHTTPServer):
    """What HashiCorp Vault's transit engine answers for one ed25519 key."""

    daemon_threads = True

    def __init__(self):
        self.key = Ed25519PrivateKey.generate()
        super().__init__(("127.0.0.1", 0), _Transit)
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()


class _Transit(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def _answer(self, data):
        body = json.dumps({"data": data}).encode()
        self.send_response(200 if data else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        public = self.server.key.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw
        )
        keys = {"1": {"public_key": base64.b64encode(public).decode()}}
        known = self.path == "/v1/transit/keys/release"
        self._answer({"keys": keys} if known else {})

    def do_PUT(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made = self.server.key.sign(base64.b64decode(asked["input"]))
        text = f"vault:v1:{base64.b64encode(made).decode()}"
        allowed = self.headers.get("X-Vault-Token") == "let-me"
        self._answer({"signature": text} if allowed else {})

    do_POST = do_PUT  # noqa: N815 # the base class's spelling


@pytest.fixture
def vault(monkeypatch):
    pytest.importorskip("hvac")
    server = Vault()
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VAULT_TOKEN", "let-me")
    yield server
    server.shutdown()
    server.server_close()


def test_a_release_key_in_a_vault_signs(tmp_path, vault):
    """The transit engine signs; the key itself is never seen."""
    publishes_with("hv:release", tmp_path, lambda _: b"pass")


def test_a_vault_that_refuses_is_told(tmp_path, vault, monkeypatch):
    """Without a valid token: said in a sentence, and nothing is published."""
    monkeypatch.setenv("VAULT_TOKEN", "wrong")
    with pytest.raises(BrokenError) as caught:
        publishes_with("hv:release", tmp_path, lambda _: b"pass")
    assert caught.value.code == "signing_failed"
    with pytest.raises(BrokenError) as caught:
        remote.find_key("hv:unknown", "x", lambda _: b"")
    assert caught.value.code == "key_unreachable"
    with pytest.raises(BrokenError) as caught:
        remote.find_key("floppy:a", "x", lambda _: b"")
    assert caught.value.code == "bad_key_uri"
