# SPDX-License-Identifier: Apache-2.0
"""Connections that are handed on: polkit is asked about who connected, or nobody."""

import os
import socket
import subprocess
import sys

import pytest

from updaterd.api import callers

_CONNECT = """
import socket, sys
socket.socket(fileno=int(sys.argv[1])).connect(sys.argv[2])
sys.stdin.read()
"""


@pytest.fixture
def handed_on(tmp_path):
    """A connection that another process made and left to us; and that process."""
    path = tmp_path / "ear"
    with socket.socket(socket.AF_UNIX) as ear, socket.socket(socket.AF_UNIX) as ours:
        ear.bind(str(path))
        ear.listen()
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _CONNECT, str(ours.fileno()), str(path)],
            pass_fds=(ours.fileno(),),
            stdin=subprocess.PIPE,
        )
        accepted, _ = ear.accept()
        with accepted:
            yield accepted, process
        process.stdin.close()
        process.wait()


def test_whoever_connected_and_is_gone_is_nobody_s_session(handed_on):
    connection, process = handed_on
    caller = callers.of(connection)
    assert caller.pid == process.pid
    assert caller.is_there()
    process.stdin.close()
    process.wait()  # its number may be anybody's now
    assert not caller.is_there()
    caller.forget()


def test_whoever_was_gone_before_is_nobody_s_session(handed_on):
    connection, process = handed_on
    process.stdin.close()
    process.wait()
    caller = callers.of(connection)
    assert not caller.is_there()
    caller.forget()


def test_descriptors_of_callers_are_given_back(handed_on):
    connection, _ = handed_on
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        callers.of(connection).forget()
    assert len(os.listdir("/proc/self/fd")) == before
