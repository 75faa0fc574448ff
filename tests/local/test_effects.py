# SPDX-License-Identifier: Apache-2.0
"""What code inside of the cage can do to the rest of the machine, layer by layer.

The daemon's user opens a bundle, and the bundle takes over: each attempt below is made
in the real cage, on a kernel that has all layers, or seems to lack one. The table that
docs/threat-model.md shows is what comes out here.
"""

import hashlib
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest
from fakes.cage import command
from fakes.people import DAEMON, at_work, give, run_as

from updaterd.artifact.worker.confine import landlock

MACHINE = os.uname().machine
PAGE = Path(__file__).parents[2] / "docs/threat-model.md"
COLUMNS = {
    "all layers": (),
    "no Landlock": ("landlock",),
    "no seccomp": ("seccomp",),
    "no namespaces": ("namespaces",),
    "neither Landlock nor namespaces": ("landlock", "namespaces"),
}

EFFECTS = {
    "make or write a file": """
        os.open(own + "/made", os.O_CREAT | os.O_WRONLY, 0o600)
        os.open(own + "/state.db", os.O_WRONLY)
        os.mkdir("made", 0o700, dir_fd=os.open(own, os.O_PATH))
        os.mkfifo(own + "/pipe")
        os.truncate(own + "/state.db", 1)""",
    "read a file": """
        os.open(own + "/state.db", os.O_RDONLY)
        os.listdir(own)
        os.open("/etc/passwd", os.O_RDONLY)""",
    "remove, rename or link a file": """
        os.unlink(own + "/removed")
        os.rmdir(own + "/folder")
        os.rename(own + "/state.db", own + "/renamed")
        os.link(own + "/state.db", own + "/linked")
        os.link(own + "/state.db", "stolen", dst_dir_fd=job.destination)
        os.symlink("/etc", own + "/symbolic")""",
    "change mode, owner, times or attributes of a file": """
        os.chmod(own + "/state.db", 0o666)
        os.fchmod(fd, 0o666)
        os.utime(own + "/state.db", (1, 1))
        os.setxattr(own + "/state.db", "user.x", b"x")
        os.chown(own + "/state.db", os.geteuid(), -1)""",
    "start a process, a thread or a program": """
        os.fork() or os._exit(0)
        threading.Thread(target=int).start()
        os.execve("/bin/true", ["true"], {})""",
    "signal another process": """
        os.kill(parent, 0)
        os.kill(parent, signal.SIGCONT)
        signal.pidfd_send_signal(os.pidfd_open(parent), 0)
        check(libc.ioctl(0, 0x5412, b"x"))""",
    "change limits or priority of another process": """
        resource.prlimit(parent, resource.RLIMIT_CORE, (0, 0))
        os.setpriority(os.PRIO_PROCESS, parent, 19)
        os.sched_setaffinity(parent, os.sched_getaffinity(parent))
        check(libc.syscall(ioprio_set, 1, parent, 0))""",
    "trace the worker, or look into its memory": """
        os.open(f"/proc/{parent}/mem", os.O_RDWR)
        os.open(f"/proc/{parent}/maps", os.O_RDONLY)
        os.open(f"/proc/{parent}/fd/0", os.O_RDONLY)
        os.open(f"/proc/{parent}/environ", os.O_RDONLY)
        check(libc.ptrace(16, parent, None, None))
        check(libc.process_vm_readv(parent, one, 1, one, 1, 0))
        check(libc.syscall(438, os.pidfd_open(parent), 0, 0))""",
    "look into the memory of this user's other processes": """
        os.open(f"/proc/{other}/mem", os.O_RDWR)
        check(libc.ptrace(16, other, None, None))
        check(libc.process_vm_readv(other, one, 1, one, 1, 0))""",
    "reach a server on the network": """
        socket.socket(socket.AF_INET).connect(("127.0.0.1", port))
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", port))
        socket.socket(socket.AF_UNIX).connect(chr(0) + abstract)""",
    "reach a server by a socket in a folder": """
        socket.socket(socket.AF_UNIX).connect(own + "/socket")""",
    "see IPC objects of the machine (System V, POSIX)": """
        check(libc.shmget(key, 0, 0))
        check(libc.msgget(key, 0))
        check(libc.mq_open(b"/updaterd-effects", 0))""",
    "use a keyring": """
        check(libc.syscall(add_key, b"user", b"x", b"y", 1, -4))
        check(libc.syscall(keyctl, 0, -4, 1))""",
    "set the clock or the name of the host, mount, load code into the kernel": """
        time.clock_settime(time.CLOCK_REALTIME, time.time())
        socket.sethostname("x")
        check(libc.mount(b"/tmp", b"/mnt", None, 4096, None))
        check(libc.syscall(bpf, 0, one, 48))
        check(libc.syscall(425, 1, one))
        check(libc.syscall(init_module, one, 8, b""))
        check(libc.syscall(userfaultfd, 0))
        check(libc.syscall(perf_event_open, one, 0, -1, -1, 0))""",
}
NUMBERS = {
    "x86_64": {"ioprio_set": 251, "add_key": 248, "keyctl": 250, "bpf": 321,
               "init_module": 175, "userfaultfd": 323, "perf_event_open": 298},
    "aarch64": {"ioprio_set": 30, "add_key": 217, "keyctl": 219, "bpf": 280,
                "init_module": 105, "userfaultfd": 282, "perf_event_open": 241},
}  # fmt: skip

PAYLOAD = """
import threading
one = struct.pack("QQ", 0, 8) * 8
def check(answer):
    if answer < 0:
        raise OSError(ctypes.get_errno(), "refused")
def apply(job, fd, progress):
    parent, mask, at = os.getppid(), 0, 0
    space = dict(globals(), **locals())
    for code in codes:
        for line in code:
            try:
                exec(line, space)
            except (OSError, RuntimeError):
                continue
            mask |= 1 << at
        at += 1
    return Made(mask, 0)
"""
RUNNER = """
import json, sys
from updaterd.artifact.worker import parent
from updaterd.artifact.job import Job
given = json.load(sys.stdin)
answer = parent.ask(Job(**given["job"]), argv=given["argv"])
made = getattr(answer.end, "result", None)
print(json.dumps([made and made.bytes_written, repr(answer)]))
"""


@pytest.fixture
def victims(own):
    """What is worth attacking, the daemon's user's: files, servers, IPC objects."""
    for name in ("state.db", "removed", "bundle"):
        give(own / name, DAEMON) if (own / name).write_text("x") else None
    for name in ("folder", "out"):
        (own / name).mkdir()
        give(own / name, DAEMON, 0o700)
    servers = [socket.create_server(("127.0.0.1", 0))]
    abstract = f"updaterd-effects-{os.getpid()}"
    for address in (chr(0) + abstract, str(own / "socket")):
        server = socket.socket(socket.AF_UNIX)
        server.bind(address)
        server.listen()
        servers.append(server)
    give(own / "socket", DAEMON)
    with at_work(DAEMON, "print('up', flush=True); input()") as other:
        yield _found(own, servers[0].getsockname()[1], abstract, _itself(other.pid))
    for server in servers:
        server.close()


def _itself(pid):
    """Return the process that was started as the user, below what starts it."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


def _found(own, port, abstract, other):
    return {
        "own": str(own),
        "other": other,
        "port": port,
        "abstract": abstract,
        "key": 0x75706474,
        **NUMBERS[MACHINE],
    }


@pytest.mark.parametrize("column", COLUMNS)
def test_what_is_possible_is_what_the_threat_model_says(own, victims, column):
    """Files, processes, network, IPC, limits, time, keys: each in each layer."""
    if landlock.version() < 6:
        pytest.skip("this kernel's Landlock bounds no signals")
    codes = [
        [line.strip() for line in body.strip().splitlines()]
        for body in EFFECTS.values()
    ]
    values = {**victims, "codes": codes}
    payload = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    job = {
        "kind": "full",
        "codec": "full1",
        "bundle": str(own / "bundle"),
        "bundle_sha256": hashlib.sha256(b"x").hexdigest(),
        "bundle_length": 1,
        "destination": str(own / "out"),
        "files": [],
        "tree": "",
    }
    argv = command(payload + PAYLOAD, MACHINE, without=COLUMNS[column])
    done = run_as(
        DAEMON,
        *(sys.executable, "-I", "-c", RUNNER),
        input=json.dumps({"job": job, "argv": argv}),
    )
    mask, answer = json.loads(done.stdout)
    assert mask is not None, answer

    found = {name: bool(mask >> at & 1) for at, name in enumerate(EFFECTS)}
    documented = _documented(column)
    if _is_yama_at_work():  # nobody looks into what is not below him
        documented["look into the memory of this user's other processes"] = False
    assert documented == found


def _is_yama_at_work():
    try:
        return Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip() != "0"
    except OSError:
        return False


def _documented(column):
    """Return what a column of the table says, by effect."""
    text = PAGE.read_text().split("<!-- effects -->\n")[1].split("<!-- end")[0]
    head, _, *rows = (
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
    )
    place = head.index(column)
    return {row[0]: row[place] == "yes" for row in rows}
