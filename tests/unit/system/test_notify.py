# SPDX-License-Identifier: Apache-2.0
import os
import socket

import pytest

from updaterd.system.notify import Notifier


@pytest.fixture
def systemd(tmp_path):
    """Stands where systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(5)
        yield server


def notifier(systemd, **more):
    return Notifier.from_environ({"NOTIFY_SOCKET": systemd.getsockname(), **more})


def test_each_message_is_one_datagram_of_assignments(systemd):
    """systemd reads a datagram at a time, so READY and its status travel together."""
    teller = notifier(systemd)

    assert teller.ready("subscribed")
    assert b"READY=1\nSTATUS=subscribed" == systemd.recv(4096)
    assert teller.watchdog()
    assert b"WATCHDOG=1" == systemd.recv(4096)
    assert teller.stopping()
    assert b"STOPPING=1" == systemd.recv(4096)
    teller.close()


def test_reloading_carries_the_monotonic_clock(systemd):
    """Type=notify-reload refuses a RELOADING without it."""
    teller = notifier(systemd)
    teller.reloading()
    first, second = systemd.recv(4096).decode().splitlines()
    assert "RELOADING=1" == first
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0
    teller.close()


def test_a_status_cannot_smuggle_in_an_assignment(systemd):
    """The text may quote a server's error."""
    teller = notifier(systemd)
    teller.status("down\nMAINPID=1\x1b[2J")
    assert 1 == len(systemd.recv(4096).splitlines())
    teller.close()


def test_abstract_sockets_are_understood():
    """Containers are handed addresses that begin with @."""
    name = f"updaterd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name)
        server.settimeout(5)
        teller = Notifier.from_environ({"NOTIFY_SOCKET": "@" + name})
        assert teller.ready()
        assert b"READY=1" == server.recv(100)
        teller.close()


def test_without_systemd_every_call_is_silent():
    """The same daemon runs in a terminal."""
    teller = Notifier.from_environ({})
    assert not teller.connected
    assert not teller.ready("x")
    assert not teller.watchdog()
    assert teller.watchdog_s is None


def test_a_listener_that_is_gone_or_full_never_stops_the_daemon(systemd, tmp_path):
    """A watchdog that is not fed is systemd's business, not an exception here."""
    teller = notifier(systemd)
    while teller.watchdog():  # until the socket's queue is full
        pass
    (tmp_path / "notify").unlink()
    assert not teller.ready()
    teller.close()
    assert not teller.ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_only_the_watched_process_has_a_watchdog(environ, seconds):
    """A worker inherits the variables but is not the one that is watched."""
    assert seconds == Notifier.from_environ(environ).watchdog_s
