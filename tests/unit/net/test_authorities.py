# SPDX-License-Identifier: Apache-2.0
"""The system's CAs count from both places they stand in."""

import shutil
import ssl
import subprocess

import httpx
import pytest
from fakes.certificates import make_certificate
from fakes.feed_server import FeedServer, answer

from updaterd.net.authorities import Places, system_places, whole_context
from updaterd.net.direct import DirectTransport


@pytest.fixture
def places(tmp_path):
    """A hashed folder that knows nobody, and a file that one may add to."""
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "0123abcd.0").touch()
    file = tmp_path / "bundle.crt"
    file.write_text("# Certificates of the system\n")
    return Places(str(folder), str(file))


@pytest.fixture
def company(tmp_path):
    (tmp_path / "company").mkdir()
    return make_certificate(tmp_path / "company")


def add(places, ca_file):
    with open(places.file, "a") as bundle:
        bundle.write(ca_file.read_text())


async def get(transport, server):
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.get(server.url)).content


async def test_a_company_s_ca_that_stands_only_in_the_file(places, company):
    """For the stream, which begins with the folder, and for workers."""
    ca_file, tls = company
    add(places, ca_file)
    small = whole_context(Places(places.folder, None))
    async with FeedServer(answer(200, body=b"x"), tls=tls) as server:
        direct = DirectTransport(small, lambda: whole_context(places))
        assert await get(direct, server) == b"x"
        whole = httpx.AsyncHTTPTransport(verify=whole_context(places), trust_env=False)
        assert await get(whole, server) == b"x"


async def test_one_that_is_added_while_the_daemon_runs(places, company):
    """Nobody restarts daemons after `update-ca-certificates`."""
    ca_file, tls = company
    small = whole_context(Places(places.folder, None))
    direct = DirectTransport(small, lambda: whole_context(places))
    async with FeedServer(answer(200, body=b"x"), tls=tls) as server:
        with pytest.raises(httpx.ConnectError):
            await direct.handle_async_request(httpx.Request("GET", server.url))
        add(places, ca_file)
        assert await get(direct, server) == b"x"


@pytest.fixture
def hashed(tmp_path, company):
    folder = tmp_path / "hashed"
    folder.mkdir()
    shutil.copy(company[0], folder / "company.pem")
    subprocess.run(["openssl", "rehash", folder], check=True, capture_output=True)
    return str(folder)


async def test_the_file_is_read_only_when_the_folder_does_not_do(hashed, company):
    """It is 2 MiB of a daemon that stays for months."""
    _, tls = company
    small = whole_context(Places(hashed, None))

    def never():
        raise AssertionError("the file was read")

    async with FeedServer(answer(200, body=b"x"), tls=tls) as server:
        assert await get(DirectTransport(small, never), server) == b"x"
    assert small.cert_store_stats()["x509"] <= 1


async def test_another_fault_of_a_certificate_reads_no_file(places, tmp_path):
    """A wrong name or an end that has passed is not cured by more CAs."""
    ca_file, tls = make_certificate(tmp_path, hosts=("other.invalid",), addresses=())
    context = ssl.create_default_context(cafile=str(ca_file))

    def never():
        raise AssertionError("the file was read")

    async with FeedServer(answer(200), tls=tls) as server:
        with pytest.raises(httpx.ConnectError):
            await get(DirectTransport(context, never), server)


def test_a_damaged_file_leaves_the_folder(places):
    with open(places.file, "w") as bundle:
        bundle.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    whole_context(places)


def test_the_environment_goes_before_the_system(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    assert system_places() is None
