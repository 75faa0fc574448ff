# SPDX-License-Identifier: Apache-2.0
"""The server's certificate is renewed while it serves, and its end is no surprise."""

import contextlib
import io
import json
import shutil
import ssl
import subprocess
import sys
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from fakes.certificates import make_certificate

from updaterd import log
from updaterd.server.certificate import Certificate


@pytest.fixture
def said():
    """What was logged, as it grows."""
    out = io.StringIO()
    log.configure("json", file=out)
    yield lambda: [json.loads(x)["event"] for x in out.getvalue().splitlines()]
    log.configure("human")


@pytest.fixture
def place(tmp_path):
    """Put certificate and key where the server reads them."""
    live = tmp_path / "live"
    live.mkdir()

    def put(**more):
        make_certificate(tmp_path, **more)
        shutil.copy(tmp_path / "ca.pem", live / "chain.pem")
        shutil.copy(tmp_path / "server.pem", live / "key.pem")
        return live / "chain.pem", live / "key.pem"

    return put


def presented(context):
    """Return the certificate that a new connection gets."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return x509.load_der_x509_certificate(client.getpeercert(binary_form=True))


def test_renewed_certificate_is_taken_for_new_connections(place, said):
    """As the file is replaced, also key after chain; nothing else is logged."""
    files = place()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    certificate = Certificate(*files, now=time.time)
    first = presented(context)
    certificate.watch(context)
    assert presented(context) == first
    old_key = files[1].read_bytes()
    place()
    new_key = files[1].read_bytes()
    files[1].write_bytes(old_key)
    certificate.watch(context)
    assert presented(context) == first
    assert said() == ["certificate_refused"]
    certificate.watch(context)
    assert said() == ["certificate_refused"]
    files[1].write_bytes(new_key)
    certificate.watch(context)
    assert presented(context) != first
    assert said() == ["certificate_refused", "certificate_taken"]
    files[0].unlink()
    certificate.watch(context)
    assert presented(context) != first


def test_end_of_a_certificate_is_said_before_and_after(place, said):
    """Once when it comes near, once when it is there; a renewal clears it."""
    files = place(days=30)
    ahead = 0
    certificate = Certificate(*files, now=lambda: time.time() + ahead * 86400)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for ahead in (0, 15, 21, 25, 31, 40):  # noqa: B007  the clock above reads it
        certificate.watch(context)
    assert said() == ["certificate_expires", "certificate_expired"]
    place(days=90)
    certificate.watch(context)
    assert said()[2:] == ["certificate_taken"]


def test_certificate_that_only_openssl_can_read_stops_nothing(place, said):
    """The server would end with its upkeep; clients judge what they are shown."""
    chain, key = place()
    der = bytearray(ssl.PEM_cert_to_DER_cert(chain.read_text()))
    der[der.index(bytes.fromhex("a003020102")) + 4] = 5  # X.509 version 6
    chain.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    Certificate(chain, key, now=time.time).watch(context)
    assert said() == []


_ASKED = """
import ssl, sys
from pathlib import Path
from updaterd.server.certificate import Certificate

chain, key, encrypted = map(Path, sys.argv[1:])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(chain, key)
certificate = Certificate(chain, key, now=lambda: 0.0)
encrypted.replace(key)
certificate.watch(context)
"""


def test_renewed_key_with_a_passphrase_is_refused_and_nobody_is_asked(place, tmp_path):
    """A question on the terminal would stop every stream until somebody comes."""
    chain, key = place()
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with subprocess.Popen(
        [sys.executable, "-c", _ASKED, chain, key, encrypted],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # or it asks the terminal of who runs the tests
    ) as process:
        try:
            assert process.wait(30) == 0
            assert "certificate_refused" in process.stdout.read()
        finally:
            process.kill()
