# SPDX-License-Identifier: Apache-2.0
"""A closed fleet: a code lets a machine in, whatever dies between use and answer."""

import json
import re
import socket
import threading
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from fakes.machine import Machine, cli
from fakes.site import Site
from fakes.trees import make_tree
from fakes.waiting import eventually


def whole(answer):
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: ([0-9]+)", head)
    return end and len(body) >= int(length[1])


class Way:
    """A way to the server on which it is killed, once, before its answer is through."""

    def __init__(self, site):
        self.site = site
        self.breaks = True
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            with closing(near):
                self._carry(near)

    def _carry(self, near):
        to = urlsplit(self.site.address)
        with socket.create_connection((to.hostname, to.port)) as far:
            asked = near.recv(65536)
            while b"token_sha256" not in asked:
                asked += near.recv(65536)
            far.sendall(asked)
            answer = far.recv(65536)
            while not whole(answer):
                answer += far.recv(65536)
            assert answer.startswith(b"HTTP/1.1 20"), answer
            if self.breaks:
                self.breaks = False
                self.site.hard_stop()
                return
            near.sendall(answer)

    def close(self):
        self._door.close()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path / "site")
    site.serve_options = ("--private", "--reports", "token")
    site.start()
    yield site
    site.hard_stop()


def machine(tmp_path, site, name):
    return Machine(
        tmp_path / name,
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
        extra="[reports]\nsend = true\n",
    )


def status(machine):
    """What the daemon itself says: a command for each look would cost a process."""
    try:
        return json.loads((machine.root / "run/status.json").read_text())
    except FileNotFoundError:
        return None


def connection(machine, what):
    said = status(machine)
    return said and (said["feed"]["connection"] or {}).get(what)


def test_machine_of_a_closed_fleet_is_let_in_by_its_code(tmp_path, site):
    def token(*words):
        return cli("token", words[0], "--state", site.state, *words[1:]).stdout

    scopes = ("--scope", "read", "--scope", "report:acme")
    code, other = token("create", *scopes, "--one-time", "--count", "2").split()
    site.push(make_tree(tmp_path / "1", {"bin/app": "#!/bin/sh\n"}), "1.0.0")
    way = Way(site)
    one = machine(tmp_path, site, "one")
    one.start()
    try:
        # nobody knows it: no feed, no file
        eventually(lambda: connection(one, "code") == "http_401", event="closed")

        # its request is kept, and the server dies before it has said so
        config = one.config.read_text()
        one.config.write_text(f'{config}[enrolment]\nurl = "{way.address}/v1/enroll"\n')
        assert one("enroll", code, expect=1).stderr
        one.config.write_text(config)
        site.start()
        one.config.write_text(f'{config}[enrolment]\nurl = "{way.address}/v1/enroll"\n')
        done = one("enroll", code)
        assert "it may report about acme" in done.stdout
        assert "feed.url is another server" in done.stdout
        one.config.write_text(config)
        (listed,) = [
            each for each in json.loads(token("list", "--json"))["tokens"]
            if each["enrolled"]
        ]  # fmt: skip

        # a thief who saw the code
        thief = machine(tmp_path, site, "thief")
        refused = thief("enroll", code, expect=1).stderr
        assert "another machine has used the code" in refused
        assert listed["id"] in refused

        # the waiting daemon is woken: feed, files and reports are open to it
        assert "may read the feed" in one("enroll", other).stdout
        eventually(lambda: one.running == "1.0.0")
        eventually(lambda: connection(one, "phase") == "open")
        eventually(lambda: status(one)["products"][0]["installed"])
        eventually(lambda: status(one)["reports"]["waiting"] == 0)
        assert status(one)["reports"]["sent_at"]
        secret = json.loads((one.root / "state/enrolment.json").read_text())["token"]
        for path in (tmp_path / "site/server.log", one.root / "daemon.log"):
            assert secret not in path.read_text()
    finally:
        way.close()
        one.stop()
