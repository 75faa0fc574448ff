# SPDX-License-Identifier: Apache-2.0
"""In front of the server: nginx and Caddy as documented, and TLS without either."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from fakes.serving import (
    DEADLINE_S,
    Reader,
    announcement,
    free_port,
    publish,
    request,
    wait_until,
)
from fakes.tools import need

DOCUMENTED = Path(__file__).parents[2] / "docs" / "fronting"


def nginx(folder, feed_url, port):
    """Return a command that runs the documented nginx.conf, ports replaced."""
    documented = (
        (DOCUMENTED / "nginx.conf")
        .read_text()
        .replace("127.0.0.1:8080", feed_url.removeprefix("http://"))
        .replace("listen 80;", f"listen 127.0.0.1:{port};")
    )
    (folder / "updaterd.conf").write_text(documented)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid;\n"
        f"error_log {folder}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; {temporary} include updaterd.conf; }}\n"
    )
    options = ("-p", folder, "-c", "nginx.conf", "-e", folder / "error.log")
    return [need("nginx"), *options]


def caddy(folder, feed_url, port):
    """Return a command that runs the documented Caddyfile, ports replaced."""
    documented = (
        (DOCUMENTED / "Caddyfile")
        .read_text()
        .replace("127.0.0.1:8080", feed_url.removeprefix("http://"))
        .replace("updates.example.com {", f"http://127.0.0.1:{port} {{")
    )
    # no administration port
    documented = documented.replace("\n{\n", "\n{\n\tadmin off\n", 1)
    (folder / "Caddyfile").write_text(documented)
    return [
        *("env", f"HOME={folder}", f"XDG_DATA_HOME={folder}"),
        *(need("caddy"), "run", "--adapter", "caddyfile"),
        *("--config", folder / "Caddyfile"),
    ]


@pytest.fixture(params=[nginx, caddy])
def command(request):
    """What makes the command line of one proxy."""
    return request.param


@pytest.fixture
def front(command, tmp_path):
    """Starts what stands in front of a server; returns its address."""
    started = []

    def start(feed_url):
        port = free_port()
        told = tmp_path / "front.log"
        with told.open("wb") as log:
            process = subprocess.Popen(
                command(tmp_path, feed_url, port), stdout=log, stderr=log
            )
        started.append(process)
        url = f"http://127.0.0.1:{port}"

        def answers():
            assert process.poll() is None, told.read_text()
            try:
                return request(f"{url}/readyz").status == 200
            except OSError:
                return False

        wait_until(answers, "it answers")
        return url

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE_S)


async def test_events_pass_at_once(start_feed, front, sink):
    """Unbuffered, both sinks; the client's address counts, not the proxy's."""
    proxy = ("--trusted-proxy", "127.0.0.1")
    feed = start_feed("--sink", sink, *proxy, "--max-per-address", "1")
    url = front(feed.url)
    token = feed.token("publish:acme/stable")
    async with Reader(url, source="127.0.0.2") as reader:
        assert (await reader.next()).name == "hello"
        answer = publish(url, token, announcement())
        assert answer.status == 201
        assert (await reader.next()).id == answer.json["id"]
        # what a client claims counts for nothing: the proxy tells its true address
        lie = {"X-Forwarded-For": "192.0.2.8"}
        async with Reader(url, headers=lie, source="127.0.0.2") as same:
            assert same.status == 429
        async with Reader(url, source="127.0.0.3") as other:
            assert other.status == 200


async def test_heartbeats_and_the_end_pass(start_feed, front):
    """A rotated stream ends properly behind a proxy, too."""
    feed = start_feed("--heartbeat", "0.2", "--lifetime", "0.6")
    async with Reader(front(feed.url)) as reader:
        assert (await reader.next()).name == "hello"
        assert await reader.next() is None
        assert reader.ended
        assert reader.heartbeats


async def test_client_that_leaves_is_gone_at_once(start_feed, front):
    """A proxy must not hold streams open that nobody reads any more."""
    feed = start_feed("--metrics", "open", "--heartbeat", "1000", "--lifetime", "9999")
    async with Reader(front(feed.url)) as reader:
        assert (await reader.next()).name == "hello"
        await feed.streams(1)
    await feed.streams(0)


async def test_refusals_pass_with_their_time(start_feed, front):
    """A proxy must not try elsewhere, or answer instead: Retry-After decides."""
    feed = start_feed("--rate", "1")
    url = front(feed.url)
    for _ in range(20):
        async with Reader(url) as reader:
            if reader.status != 200:
                break
    assert reader.status == 503
    assert int(reader.answer["retry-after"]) >= 1


def test_files_pass_with_ranges(start_feed, front, tmp_path):
    """What a resumed download needs survives the way."""
    repository = tmp_path / "public"
    blob = repository / "blobs/sha256/ab" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(range(256)) * 100)
    feed = start_feed("--repo", repository)
    url = f"{front(feed.url)}/repo/{blob.relative_to(repository)}"
    answer = request(url, range="bytes=1000-", if_range=f'"{blob.name}"')
    assert (answer.status, answer.body) == (206, blob.read_bytes()[1000:])
    assert "immutable" in answer.headers["cache-control"]
    head = request(url, "HEAD", accept_encoding="gzip")
    assert (head.status, head.headers["content-length"]) == (200, "25600")
    assert request(url, if_none_match=f'"{blob.name}"').status == 304


def test_inside_stays_inside(start_feed, front):
    """Metrics and liveness are not for the public."""
    url = front(start_feed("--metrics", "open").url)
    assert request(f"{url}/metrics").status == 404
    assert request(f"{url}/healthz").status == 404


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1: files of chain and key."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(need("openssl"), "req", "-x509", "-newkey", "ec", "-nodes"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_tls(start_feed, sink, certificate):
    """HTTPS without anything in front, both sinks."""
    cert, key = certificate
    feed = start_feed("--sink", sink, "--tls-cert", cert, "--tls-key", key)
    assert feed.url.startswith("https://")
    tls = ssl.create_default_context(cafile=str(cert))
    async with Reader(feed.url, tls=tls) as reader:
        assert (await reader.next()).name == "hello"
        async with Reader(feed.url, tls=tls) as second:
            assert (await second.next()).name == "hello"
            feed.process.terminate()
            assert await reader.next() is None
            assert await second.next() is None
    assert await asyncio.to_thread(feed.stop) == 0
