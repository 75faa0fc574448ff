# SPDX-License-Identifier: Apache-2.0
"""A real Chromium without a window, spoken to through a pipe (DevTools protocol)."""

import base64
import fcntl
import json
import os
import select
import subprocess
import time

from fakes.serving import DEADLINE_S
from fakes.tools import need


class Browser:
    """One Chromium with one page.

    `requests` has the address of each request, `complaints` what the page's console and
    its Content-Security-Policy said.
    """

    def __init__(self, folder):
        self.folder = folder
        self.requests, self.complaints = [], []
        self._count = 0
        self._buffer = b""
        self._session = None
        self._events = []

    def __enter__(self):
        # to high numbers first: the child has them as 3 and 4, which may be taken here
        ends = [
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 100)
            for end in (*os.pipe(), *os.pipe())
        ]
        self._read, theirs, ours, self._write = ends[0], ends[1], ends[2], ends[3]

        def place():
            os.dup2(ours, 3)
            os.dup2(theirs, 4)

        self.process = subprocess.Popen(
            [
                *(need("chromium"), "--headless=new", "--no-sandbox", "--disable-gpu"),
                *("--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
                f"--user-data-dir={self.folder / 'profile'}",
                *("--remote-debugging-pipe", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,  # noqa: PLW1509 - nothing else puts pipes at 3 and 4
            pass_fds=(3, 4),
        )
        os.close(theirs)
        os.close(ours)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        answer = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(DEADLINE_S)
        os.close(self._read)
        os.close(self._write)

    def ask(self, method, **parameters):
        """Send one command and return its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self, deadline_s=DEADLINE_S):
        end = time.monotonic() + deadline_s
        while b"\0" not in self._buffer:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._read], [], [], max(0, left))
            assert ready, "Chromium does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium ended"
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(raw)
        self._note(message)
        return message

    def _note(self, message):
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"}:
            self.complaints.append(json.dumps(parameters))
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {parameters['message']}")
        if method == "Page.loadEventFired":
            self._events.append(method)

    def go(self, url):
        """Open an address and wait until it is loaded."""
        self._events.clear()
        answer = self.ask("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.loaded()

    def loaded(self):
        """Wait until a page that was asked for is loaded."""
        while not self._events:
            self._next()

    def run(self, script):
        """Return what a script of the page comes to."""
        answer = self.ask(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script, subject):
        """Wait until a script of the page comes to something true."""
        end = time.monotonic() + DEADLINE_S
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never happened: {subject}"
            time.sleep(0.05)
        return value

    def look(self, *, width=1200, scheme="light", script=True):
        """Be a screen of this width, in the light or the dark."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)

    def picture(self, path):
        """Keep a picture of the whole page."""
        answer = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    def submit(self, selector):
        """Send a form, and wait for the page that answers."""
        self._events.clear()
        self.run(f"document.querySelector({json.dumps(selector)}).requestSubmit()")
        self.loaded()
