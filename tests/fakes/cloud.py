# SPDX-License-Identifier: Apache-2.0
"""An S3 server in a process of its own (moto's), and a gate in front that counts.

The gate passes requests on one by one, and does something before one of them is
passed on, or before its answer is.
"""

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from fakes.repository import PLATFORM
from fakes.serving import free_port
from fakes.waiting import eventually
from tuf.ngclient import Updater

from updaterd.core import layout, manifest

PATIENCE_S = 60.0
"""How long one request may take: the machine may be busy with other tests."""

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


class Cloud:
    """moto's server; buckets are readable for everybody, as behind a CDN."""

    def __init__(self):
        self.port = free_port()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                str(self.port),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **KEYS},
        )
        self.url = f"http://127.0.0.1:{self.port}"
        eventually(self._answers, event="the S3 server answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/moto-api/data.json", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def environment(self, url: str = "") -> dict[str, str]:
        """Return what a publisher is given: keys and where the server is."""
        return {**KEYS, "AWS_ENDPOINT_URL": url or self.url}

    def make(self, bucket: str) -> str:
        """Make a bucket that everybody may read; return its address over HTTP."""
        address = f"{self.url}/{bucket}"
        httpx.put(address, timeout=PATIENCE_S).raise_for_status()
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "s3:GetObject",
                    "Resource": f"arn:aws:s3:::{bucket}/*",
                }
            ],
        }
        httpx.put(
            f"{address}?policy", content=json.dumps(policy), timeout=PATIENCE_S
        ).raise_for_status()
        return address

    def reset(self) -> None:
        """Forget every bucket."""
        httpx.post(f"{self.url}/moto-api/reset", timeout=PATIENCE_S).raise_for_status()

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Gate(ThreadingHTTPServer):
    """Between a publisher and the cloud, or a client and a bucket.

    Args:
        port: of what is behind it, on this machine.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = port
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []
        self.received = self.sent = 0
        self.before: Callable[[int, str, str], int | None] = _nothing
        """Told the number, method and path of a request; a status instead of it."""
        self.after: Callable[[int, str, str], int | None] = _nothing
        """The same, when the cloud has done it and nobody was told yet."""
        self.turn = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Whoever asked is gone: that is what is tried here."""

    def clear(self) -> None:
        self.requests.clear()
        self.received = self.sent = 0
        self.before = self.after = _nothing

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def _nothing(_number: int, _method: str, _path: str) -> None:
    return None


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _pass(self) -> None:
        gate = self.server
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with gate.turn:
            gate.received += len(body)
            gate.requests.append((self.command, self.path))
            number = len(gate.requests)
            status = gate.before(number, self.command, self.path)
            if status is not None:
                self._answer(status, [], b"")
                return
            behind = http.client.HTTPConnection("127.0.0.1", gate.behind, timeout=60)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() != "connection"
            }
            behind.request(self.command, self.path, body, headers)
            answer = behind.getresponse()
            data = answer.read()
            behind.close()
            status = gate.after(number, self.command, self.path)
            self._answer(status or answer.status, answer.getheaders(), data)

    def _answer(self, status, headers, data) -> None:
        self.send_response(status)
        skipped = {
            "connection",
            "transfer-encoding",
            "content-length",
            "server",
            "date",
        }
        for name, value in headers:
            if name.lower() not in skipped:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.server.sent += len(data)
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815


def offered(url: str, bootstrap: bytes, cache) -> str:
    """Return what acme/stable offers, as python-tuf alone sees it; "": nothing.

    Everything that the offer leads to is read: the manifest, and the full bundle by its
    hash.
    """
    updater = Updater(
        metadata_dir=str(cache),
        metadata_base_url=f"{url}/metadata/",
        target_base_url=f"{url}/targets/",
        bootstrap=bootstrap,
    )
    updater.refresh()
    info = updater.get_targetinfo("acme/channels/stable.json")
    if info is None:
        return ""
    updater.download_target(info, str(cache / "pointer"))
    releases = info.unrecognized_fields["custom"]["releases"]
    if not releases:
        return ""
    version = releases[0]["version"]
    info = updater.get_targetinfo(f"acme/releases/{version}/{PLATFORM}.json")
    updater.download_target(info, str(cache / "manifest"))
    document = manifest.parse((cache / "manifest").read_bytes())
    digest = document.full.sha256
    answer = httpx.get(f"{url}/{layout.blob(digest)}", timeout=PATIENCE_S)
    data = answer.raise_for_status().content
    assert hashlib.sha256(data).hexdigest() == digest
    return version
