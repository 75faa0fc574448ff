# SPDX-License-Identifier: Apache-2.0
"""Each test confines a process of its own, which then tries to break out."""

import json
import subprocess
import sys

import pytest
from fakes.tools import refuse

from updaterd.artifact.worker.confine import Confined

PRELUDE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys
from pathlib import Path
from updaterd.artifact.worker.confine import confine
stage, outside = Path(sys.argv[1]), Path(sys.argv[2])

def put(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))

def attempt(work):
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"
"""


def tried(tmp_path, body, *, uid=None):
    """Return what `body` reported, having run in a process of its own."""
    stage, outside = tmp_path / "stage", tmp_path / "outside"
    for folder in (stage, outside):
        folder.mkdir()
        (folder / "old").write_text("old")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PRELUDE + body, str(stage), str(outside)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    if found.pop("abi", 1) == 0:
        refuse("this kernel has no Landlock")
    return found


def test_nothing_outside_of_the_staging_folder_can_be_changed(tmp_path):
    """Not by writing, truncating, creating, linking, renaming, removing."""
    found = tried(
        tmp_path,
        """
(outside / "open").write_text("")
abi = confine(stage).landlock_abi
print(json.dumps({"abi": abi,
    "write": attempt(lambda: os.open(outside / "old", os.O_WRONLY)),
    "truncate": attempt(lambda: os.open(outside / "old", os.O_RDONLY | os.O_TRUNC)),
    "create": attempt(lambda: put(outside / "new")),
    "mkdir": attempt(lambda: os.mkdir("dir", 0o755,
        dir_fd=os.open(outside, os.O_RDONLY))),
    "symlink": attempt(lambda: (outside / "link").symlink_to("old")),
    "remove": attempt(lambda: (outside / "old").unlink()),
    "fifo": attempt(lambda: os.mkfifo(outside / "fifo")),
    "move out": attempt(lambda: os.rename(stage / "old", outside / "new")),
    "move in": attempt(lambda: os.rename(outside / "old", stage / "new")),
    "link out": attempt(lambda: os.link(stage / "old", outside / "new")),
    "tmp": attempt(lambda: put("/tmp/updaterd-confine-test")),
    "device": attempt(lambda: os.open("/dev/null", os.O_WRONLY)),
}))
""",
    )
    assert set(found.values()) <= {"EACCES", "EPERM", "EXDEV"}, found
    assert "old" == (tmp_path / "outside" / "old").read_text()


def test_a_link_in_the_staging_folder_leads_nowhere(tmp_path):
    """A bundle's symlink must not be a way out: the kernel looks at the file."""
    found = tried(
        tmp_path,
        """
(stage / "way-out").symlink_to(outside)
abi = confine(stage).landlock_abi
print(json.dumps({"abi": abi,
    "through": attempt(lambda: put(stage / "way-out" / "old"))}))
""",
    )
    assert "EACCES" == found["through"]


def test_the_work_itself_still_goes(tmp_path):
    """Read the old tree, make folders and files; map, ask for time and memory."""
    found = tried(
        tmp_path,
        """
import mmap, resource
here, there = (os.open(path, os.O_RDONLY) for path in (stage, outside))
abi = confine(here, read=[there]).landlock_abi
def work():
    os.mkdir("a", 0o755, dir_fd=here)
    folder = os.open("a", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
    made = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=folder)
    source = os.open("old", os.O_RDONLY, dir_fd=there)
    os.write(made, mmap.mmap(source, 3, access=mmap.ACCESS_READ)[:])
    again = os.open("file", os.O_RDONLY, dir_fd=folder)
    assert os.pread(again, 9, 0) == b"old" and os.fstat(again).st_size == 3
    resource.getrusage(resource.RUSAGE_SELF)
    os.dup(again), bytearray(1 << 25), os.urandom(8)
print(json.dumps({"abi": abi, "work": attempt(work)}))
""",
    )
    assert {"work": "done"} == found


@pytest.mark.parametrize("mode", ["0o4755", "0o2755", "0o1755", "0o666", "0o777"])
def test_what_is_made_gets_no_mode_that_a_release_may_not_have(tmp_path, mode):
    """No set-user-id file, and none that others may write, whatever the umask."""
    found = tried(
        tmp_path,
        f"""
os.umask(0)
here = os.open(stage, os.O_RDONLY)
confine(stage)
create = os.O_WRONLY | os.O_CREAT
print(json.dumps({{
    "file": attempt(lambda: os.open("x", create, {mode}, dir_fd=here)),
    "nameless": attempt(lambda: os.open(".", os.O_WRONLY | os.O_TMPFILE, {mode},
        dir_fd=here)),
    "folder": attempt(lambda: os.mkdir("d", {mode}, dir_fd=here))}}))
""",
    )
    assert {"EPERM"} == set(found.values())


def test_no_network_and_no_programs(tmp_path):
    """What hostile bytes make of the parser can neither call home nor start a shell."""
    found = tried(
        tmp_path,
        """
done = confine(stage)
def pair():
    a, b = socket.socketpair()
print(json.dumps({
    "tcp": attempt(lambda: socket.socket(socket.AF_INET)),
    "udp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
    "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "pair": attempt(pair),
    "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
    "spawn": attempt(lambda: subprocess.run(["/bin/true"])),
    "fork": attempt(os.fork),
    "unshare": attempt(lambda: ctypes.CDLL(None, use_errno=True).unshare(0x10000000)
        and (_ for _ in ()).throw(OSError(ctypes.get_errno(), ""))),
    "denied": done.network_denied,
}))
""",
    )
    assert found.pop("denied")
    assert set(found.values()) <= {"EPERM", "EACCES"}, found


def test_an_inherited_socket_cannot_send(tmp_path):
    """sendto and sendmsg are refused too; plain pipes to the parent stay open."""
    found = tried(
        tmp_path,
        """
left, right = socket.socketpair()
confine(stage)
print(json.dumps({"send": attempt(lambda: left.send(b"x")),
    "sendmsg": attempt(lambda: left.sendmsg([b"x"]))}))
""",
    )
    assert {"EPERM"} == set(found.values())


def test_reading_can_be_bounded_too(tmp_path):
    """Given a list, the rest of the disk cannot even be read."""
    found = tried(
        tmp_path,
        """
abi = confine(stage, read=[outside / "old"]).landlock_abi
print(json.dumps({"abi": abi,
    "listed": attempt((outside / "old").read_bytes),
    "stage": attempt((stage / "old").read_bytes),
    "passwd": attempt(Path("/etc/passwd").read_bytes)}))
""",
    )
    assert {"listed": "done", "stage": "done", "passwd": "EACCES"} == found


def test_children_inherit_and_nothing_widens_it_again(tmp_path):
    """A second call can only take more away."""
    found = tried(
        tmp_path,
        """
abi = confine(stage, seccomp=False).landlock_abi
confine(outside, seccomp=False)
pid = os.fork()
if pid == 0:
    os._exit(attempt(lambda: (outside / "new").write_text("x")) != "EACCES")
print(json.dumps({"abi": abi,
    "outside": attempt(lambda: (outside / "new").write_text("x")),
    "stage": attempt(lambda: (stage / "new").write_text("x")),
    "child": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}))
""",
    )
    assert {"outside": "EACCES", "stage": "EACCES", "child": 0} == found


def test_no_set_user_id_program_helps(tmp_path):
    found = tried(
        tmp_path,
        """
confine(stage)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"nnp": int(status["NoNewPrivs"]), "seccomp": int(status["Seccomp"])}))
""",
    )
    assert {"nnp": 1, "seccomp": 2} == found


@pytest.mark.parametrize("abi", [0, 1, 2, 3])
@pytest.mark.parametrize("seccomp", [True, False])
def test_what_a_kernel_lacks_is_told(abi, seccomp):
    """Kernels before 5.13 have no Landlock, other machines no filter."""
    confined = Confined(abi, seccomp, namespaces=False)

    assert (abi < 3) + (not seccomp) == len(confined.missing)
    assert ("no landlock" in str(confined)) == (not abi) != confined.writes_bounded
    assert str(confined).endswith("no namespaces")
    assert seccomp == confined.network_denied


def test_a_stage_that_is_not_there_is_an_error(tmp_path):
    """Better no work than work that is confined to nothing."""
    found = tried(
        tmp_path, 'print(json.dumps({"got": attempt(lambda: confine(stage / "no"))}))'
    )
    assert "ENOENT" == found["got"]
