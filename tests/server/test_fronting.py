"""In front of the server: nginx as documented, TLS, a browser."""

import asyncio
import http.server
import json
import queue
import ssl
import subprocess
import threading
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

DOCUMENTED = Path(__file__).parents[2] / "docs" / "fronting" / "nginx.conf"


@pytest.fixture
def nginx(tmp_path):
    """Starts nginx with the documented configuration, ports and paths replaced."""
    program = need("nginx")
    started = []

    def start(feed_url):
        port = free_port()
        documented = (
            DOCUMENTED
            .read_text()
            .replace("127.0.0.1:8080", feed_url.removeprefix("http://"))
            .replace("listen 80;", f"listen 127.0.0.1:{port};")
        )
        (tmp_path / "updaterd.conf").write_text(documented)
        temporary = " ".join(
            f"{kind}_temp_path {tmp_path}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {tmp_path}/pid;\n"
            f"error_log {tmp_path}/error.log;\nevents {{}}\n"
            f"http {{ access_log off; {temporary} include updaterd.conf; }}\n"
        )
        process = subprocess.Popen([
            program,
            "-p",
            tmp_path,
            "-c",
            "nginx.conf",
            "-e",
            tmp_path / "error.log",
        ])
        started.append(process)
        url = f"http://127.0.0.1:{port}"

        def answers():
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            try:
                return request(f"{url}/readyz").status == 200
            except OSError:
                return False

        wait_until(answers, "nginx answers")
        return url

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE_S)


async def test_events_pass_nginx_at_once(start_feed, nginx, sink):
    """Unbuffered, both sinks; the client's address counts, not nginx's."""
    feed = start_feed(*(
        "--sink",
        sink,
        "--trusted-proxy",
        "127.0.0.1",
        "--max-per-address",
        "1",
    ))
    url = nginx(feed.url)
    token = feed.token("publish:acme/stable")
    async with Reader(url, headers={"X-Forwarded-For": "192.0.2.7"}) as reader:
        assert (await reader.next()).name == "hello"
        answer = publish(url, token, announcement())
        assert (await reader.next()).id == answer.json["id"]
        # nginx appends the true address, and that one is counted
        headers = {"X-Forwarded-For": "192.0.2.8"}
        async with Reader(url, headers=headers) as second:
            assert second.status == 200
    assert request(f"{url}/metrics").status == 404


async def test_nginx_passes_heartbeats_and_the_end(start_feed, nginx):
    """A rotated stream ends properly behind nginx, too."""
    feed = start_feed("--heartbeat", "0.2", "--lifetime", "0.6")
    async with Reader(nginx(feed.url)) as reader:
        assert (await reader.next()).name == "hello"
        assert await reader.next() is None
        assert reader.ended
        assert reader.heartbeats


def test_files_pass_nginx_with_ranges(start_feed, nginx, tmp_path):
    """What a resumed download needs survives the way."""
    repository = tmp_path / "public"
    blob = repository / "blobs/sha256/ab" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(range(256)) * 100)
    feed = start_feed("--repo", repository)
    url = f"{nginx(feed.url)}/repo/{blob.relative_to(repository)}"
    answer = request(url, range="bytes=1000-", if_range=f'"{blob.name}"')
    assert (answer.status, answer.body) == (206, blob.read_bytes()[1000:])
    assert "immutable" in answer.headers["cache-control"]


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


PAGE = """<!doctype html><title>shop</title><script>
const tell = what => fetch("/told", {method: "POST", body: JSON.stringify(what)});
const feed = new EventSource("FEED/v1/events?product=acme");
feed.onopen = () => tell({name: "open"});
for (const name of ["hello", "update_available", "resync"])
  feed.addEventListener(name, e => tell({name, id: e.lastEventId, data: e.data}));
</script>"""


@pytest.fixture
def page():
    """A web page of another origin, and a queue of what it tells."""
    told = queue.Queue()
    feed_url = []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = PAGE.replace("FEED", feed_url[0]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            told.put(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}", feed_url, told
        site.shutdown()
        thread.join()


def test_page_in_chromium_gets_events_across_reconnects(start_feed, page, tmp_path):
    """EventSource of another origin: live, and again after its stream was rotated."""
    chromium = need("chromium")
    origin, feed_url, told = page
    feed = start_feed("--allow-origin", origin, "--heartbeat", "0.3", "--lifetime", "1")
    feed_url.append(feed.url)
    token = feed.token("publish:acme/stable")
    browser = subprocess.Popen(
        [
            *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", "--no-first-run"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"),
            f"{origin}/",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        seen = []

        def until(name, count):
            while sum(what["name"] == name for what in seen) < count:
                seen.append(told.get(timeout=60))

        until("hello", 1)
        ids = [publish(feed.url, token, announcement(seq=1)).json["id"]]
        until("update_available", 1)
        until("open", 2)  # the first stream's time was up
        ids.append(publish(feed.url, token, announcement(seq=2)).json["id"])
        until("update_available", 2)
        until("open", 3)
    finally:
        browser.terminate()
        browser.wait(DEADLINE_S)
    updates = [what["id"] for what in seen if what["name"] == "update_available"]
    assert updates == ids
    assert "resync" not in {what["name"] for what in seen}
