# SPDX-License-Identifier: Apache-2.0
"""A network that is back is noticed, by the kernel's own word."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from fakes.tools import need

from updaterd.daemon import network
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state

SCRIPT = """
import subprocess, sys
from updaterd.daemon import network
ear = network.listen()
def ip(*words): subprocess.run(["ip", *words], check=True)
def told(): print(network.has_way_out(ear))
ip("link", "set", "lo", "up")
ip("address", "add", "192.0.2.2/24", "dev", "lo")
told()
ip("route", "add", "198.51.100.0/24", "via", "192.0.2.1")
told()
ip("route", "add", "default", "via", "192.0.2.1", "table", "77")
told()
ip("route", "add", "default", "via", "192.0.2.1")
told()
told()
ip("route", "del", "default")
told()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network of its own: needs root")
def test_a_default_route_that_appears_is_told_once_and_nothing_else():
    need("ip", "iproute2")
    done = subprocess.run(
        [need("unshare", "util-linux"), "--net", sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["False", "False", "False", "True", "False", "False"]


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\xff" * 64, b"\x10\0\0\0" * 9])
def test_odd_messages_are_no_routes(data):
    assert not [part for part in network._messages(data) if network._is_default(part)]


def test_a_kernel_that_tells_no_more_is_no_reason_to_ask_for_ever():
    ear, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.close()
    with other, pytest.raises(OSError, match="Bad file descriptor"):
        network.has_way_out(ear)


def test_a_suspend_is_told_once():
    moments = iter([100.0, 101.0, 3702.0, 3703.0])
    monotonic = iter([50.0, 51.0, 52.0, 53.0])
    suspends = network.Suspends(lambda: next(moments), lambda: next(monotonic))

    assert [suspends.passed() for _ in range(3)] == [False, True, False]


def test_what_waited_for_another_network_is_due(tmp_path):
    with closing(open_state(tmp_path / "state.db")) as connection:
        journal = Journal(connection)
        journal.remember("acme", decision="metered", next_attempt_at=9e9)
        journal.remember("other", decision="held", next_attempt_at=9e9)
        network.look_at_metered(connection, ["acme", "other"], 1.0)

        assert journal.next_attempt_at("acme") == 1.0
        assert journal.next_attempt_at("other") == 9e9
