# SPDX-License-Identifier: Apache-2.0
"""Who asks is told by the kernel: real users, at a real socket, for each method.

The socket is handed over as systemd does it, so that no start of the process is needed
for it to be there.
"""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from fakes.people import APPLICATION, DAEMON, STRANGER, command, give, give_all, run_as

from updaterd.store.journal import Journal, Note, Release
from updaterd.store.schema import open_state

CLIENT = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
for method, parameters in json.loads(sys.argv[2]):
    call = {"method": "io.updaterd.Updater." + method, "parameters": parameters}
    sock.sendall(json.dumps(call).encode() + bytes(1))
    answer = b""
    while not answer.endswith(bytes(1)):
        answer += sock.recv(65536)
    print(json.loads(answer[:-1]).get("error", "done").rpartition(".")[2])
"""
START = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-I", "-m", "updaterd", *sys.argv[1:]])
"""
ACME = {"product": "acme"}
CALLS = [
    ("List", {}),
    ("Status", ACME),
    ("Monitor", ACME),
    ("Update", ACME),
    ("Check", ACME),
    ("Apply", ACME),
    ("Postpone", {**ACME, "until": 2_000_000_000}),
    ("Hold", ACME),
    ("Unhold", ACME),
    ("Inhibit", {**ACME, "why": "a call is on"}),
]
FREE = 3


@pytest.fixture
def socket_path(ground):
    """A machine with a product of which 1.1.0 is ready, and who answers for it."""
    for name in ("state", "cache", "run", "opt"):
        (ground / name).mkdir()
    (ground / "root.json").write_text("{}")
    config = ground / "updaterd.toml"
    config.write_text(
        '[feed]\nurl = "http://127.0.0.1:9/v1/events"\n'
        f'[trust]\nroot = "{ground}/root.json"\n'
        'repository = "http://127.0.0.1:9/repo"\n'
        f'[products.acme]\nroot = "{ground}/opt"\nusers = ["{APPLICATION}"]\n'
    )
    with closing(open_state(ground / "state/state.db")) as opened:
        journal = Journal(opened)
        release = Release("1.1.0", 2, "u" * 64)
        ident = journal.begin("acme", "stable", release, "event", Note(1.0))
        journal.move(ident, "PLANNED", Note(1.0))
        journal.move(ident, "STAGED", Note(1.0))
        journal.remember("acme", decision="waits_for_request", checked_at=1.0)
    for name in ("state", "cache", "run", "opt"):
        give_all(ground / name, DAEMON)
    path = ground / "io.updaterd"
    ear = socket.socket(socket.AF_UNIX)
    ear.bind(str(path))
    ear.listen()
    give(path, DAEMON, 0o666)
    options = ["--config", config]
    for kind, name in (("state", "state"), ("cache", "cache"), ("runtime", "run")):
        options += [f"--{kind}-dir", ground / name]
    saved = os.dup(3)
    os.dup2(ear.fileno(), 3)
    try:
        process = subprocess.Popen(
            command(DAEMON, sys.executable, "-c", START, "api", *options),
            pass_fds=(3,),
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"},
        )
    finally:
        os.dup2(saved, 3)
        os.close(saved)
        ear.close()
    yield path
    assert process.wait(60) == 0, "it ends by itself"


def answers(uid, path):
    words = (sys.executable, "-c", CLIENT, path, json.dumps(CALLS))
    return run_as(uid, *words).stdout.split()


def test_each_kind_of_user_at_each_method(socket_path):
    assert answers(STRANGER, socket_path) == [
        *["done"] * FREE,
        *["PermissionDenied"] * (len(CALLS) - FREE),
    ]
    for uid in (APPLICATION, DAEMON, 0):
        told = dict(
            zip([name for name, _ in CALLS], answers(uid, socket_path), strict=True)
        )
        # nothing can be asked there: that it was tried is what counts
        assert told.pop("Check") == "Failed"
        assert set(told.values()) == {"done"}, uid
