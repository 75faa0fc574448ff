"""Each test confines a process of its own, which then tries to break out."""

import json
import subprocess
import sys

import pytest
from fakes.tools import refuse

PRELUDE = """
import ctypes, errno, json, os, signal, socket, subprocess, sys
from pathlib import Path
from updaterd.confine import confine
stage, outside = Path(sys.argv[1]), Path(sys.argv[2])

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
    "write": attempt(lambda: (outside / "old").write_text("new")),
    "truncate": attempt(lambda: os.truncate(outside / "old", 0)),
    "create": attempt(lambda: (outside / "new").write_text("new")),
    "mkdir": attempt(lambda: (outside / "dir").mkdir()),
    "symlink": attempt(lambda: (outside / "link").symlink_to("old")),
    "remove": attempt(lambda: (outside / "old").unlink()),
    "fifo": attempt(lambda: os.mkfifo(outside / "fifo")),
    "move out": attempt(lambda: os.rename(stage / "old", outside / "new")),
    "move in": attempt(lambda: os.rename(outside / "old", stage / "new")),
    "link out": attempt(lambda: os.link(stage / "old", outside / "new")),
    "tmp": attempt(lambda: Path("/tmp/updaterd-confine-test").write_text("")),
    "device": attempt(lambda: Path("/dev/null").write_text("x")),
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
    "through": attempt(lambda: (stage / "way-out" / "old").write_text("new"))}))
""",
    )
    assert "EACCES" == found["through"]


def test_the_work_itself_still_goes(tmp_path):
    """Read the old tree, make folders, files and links, rename, threads, fsync."""
    found = tried(
        tmp_path,
        """
import threading
abi = confine(stage, link_from=outside).landlock_abi
def work():
    deep = stage / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes((outside / "old").read_bytes())
    os.chmod(deep / "file", 0o755)
    (deep / "link").symlink_to("file")
    os.rename(deep / "file", stage / "file")
    os.link(outside / "old", deep / "shared")
    os.truncate(stage / "file", 1)
    with open(stage / "file", "ab") as file:
        os.fsync(file.fileno())
    (deep / "link").unlink()
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    import lzma, tarfile
print(json.dumps({"abi": abi, "work": attempt(work)}))
""",
    )
    assert {"work": "done"} == found


def test_a_tree_that_may_not_be_linked_from_is_not(tmp_path):
    """Hard links into the stage would let later writes reach the old release."""
    found = tried(
        tmp_path,
        """
abi = confine(stage).landlock_abi
print(json.dumps({"abi": abi,
    "link": attempt(lambda: os.link(outside / "old", stage / "shared"))}))
""",
    )
    assert found["link"] in {"EXDEV", "EACCES"}


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


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_an_older_kernel_is_told_about_not_failed_on(tmp_path, answer):
    """Kernels before 5.13 have no Landlock; the report says what that means."""
    found = tried(
        tmp_path,
        f"""
import updaterd.confine as module
if {answer} <= module._landlock_abi():
    module._landlock_abi = lambda: {answer}
done = confine(stage)
print(json.dumps({{"got": done.landlock_abi, "missing": done.missing}}))
""",
    )
    assert answer == found["got"]
    assert 1 == len(found["missing"])
    assert found["missing"][0].startswith("landlock")


def test_a_machine_without_a_filter_is_told_about(tmp_path):
    found = tried(
        tmp_path,
        """
import updaterd.confine as module
module._DENIED = {}
done = confine(stage)
print(json.dumps({"missing": done.missing, "denied": done.network_denied}))
""",
    )
    assert not found["denied"]
    assert found["missing"][-1].startswith("seccomp: no filter for")


def test_a_stage_that_is_not_there_is_an_error(tmp_path):
    """Better no work than work that is confined to nothing."""
    found = tried(
        tmp_path, 'print(json.dumps({"got": attempt(lambda: confine(stage / "no"))}))'
    )
    assert "ENOENT" == found["got"]
