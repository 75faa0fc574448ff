# SPDX-License-Identifier: Apache-2.0
"""A web page that subscribes: EventSource in a real browser, from another origin."""

import http.server
import json
import queue
import subprocess
import threading

import pytest
from fakes.serving import DEADLINE_S, announcement, publish
from fakes.tools import need

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
