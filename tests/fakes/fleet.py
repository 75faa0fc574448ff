# SPDX-License-Identifier: Apache-2.0
"""A server of reports that says what a test wants, and a receiver of webhooks."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fleet:
    """Answers `/v1/fleet...`, takes announcements and webhooks.

    Attributes:
        machines: how many follow the channel.
        ends: version -> [(outcome, code, fault, machines)].
        status: of every answer about the fleet; 200: as it should be; None: no answer.
        answer: instead of what it should be.
        refuse: statuses of the next webhooks' answers.
        hooks: headers and body of each webhook that came.
        announced: bodies of announcements.
    """

    def __init__(self):
        self.reset()
        self._serve()

    def reset(self):
        """Forget what it was told and what it got."""
        self.machines = 1000
        self.ends = {}
        self.status = 200
        self.answer = None
        self.refuse = []
        self.hooks = []
        self.announced = []
        self.tokens = set()

    def _serve(self):
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                fleet.tokens.add(self.headers["authorization"])
                if fleet.status is None:
                    return  # dead in the middle of a request
                status, document = fleet._get(self.path)
                self._reply(status, document)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.startswith("/hook"):
                    fleet.hooks.append((dict(self.headers.items()), body))
                    status = fleet.refuse.pop(0) if fleet.refuse else 200
                    return self._reply(status, {})
                fleet.announced.append(json.loads(body))
                return self._reply(202, {"id": "e:1", "streams": 0})

            def _reply(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reports(self, version, *, well=0, failed=0, other=0):
        """Say how a release ended on how many machines."""
        self.ends[version] = [
            ("installed", "upgrade", "nobody", well),
            ("rolled_back", "unhealthy", "release", failed),
            ("failed", "disk_full", "machine", other),
        ]

    def _get(self, path):
        if self.status != 200:
            return self.status, {"code": "unavailable"}
        if self.answer is not None:
            return 200, self.answer
        if path == "/v1/fleet":
            row = {"product": "acme", "channel": "stable", "machines": self.machines}
            return 200, {"schema": 1, "channels": [row]}
        version = path.rpartition("/")[2]
        if version not in self.ends:
            return 404, {"code": "no_reports"}
        codes = [
            {"outcome": outcome, "code": code, "fault": fault, "machines": machines}
            for outcome, code, fault, machines in self.ends[version]
        ]
        return 200, {"schema": 1, "version": version, "codes": codes}

    def close(self):
        self._server.shutdown()
        self._server.server_close()
