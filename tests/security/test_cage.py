# SPDX-License-Identifier: Apache-2.0
"""Code inside of the bundle opener: what it can do to the rest, and say.

Each payload runs in the real cage, in place of the unpacking (`fakes/cage.py`), with
all that such code could reach: its descriptors, its parent, its pipe.
"""

import hashlib
import os
import resource
import stat
from pathlib import Path

import pytest
from fakes.bundles import grow
from fakes.cage import command
from fakes.tools import refuse

from updaterd.artifact.job import Job
from updaterd.artifact.verify import verify_tree
from updaterd.artifact.worker import parent
from updaterd.artifact.worker.confine import landlock
from updaterd.core.frozen import replaced
from updaterd.core.manifest import tree_id
from updaterd.errors import RejectedError, UpdaterError
from updaterd.release.bundles import full as release_bundle
from updaterd.system import locks

MACHINE = os.uname().machine
HONEST = """
from updaterd.artifact import unpack
honest = unpack.apply
def apply(job, fd, progress):
    attack(job, fd)
    return honest(job, fd, progress)
"""


@pytest.fixture
def job(tmp_path):
    """An honest full bundle, and what is worth attacking beside it."""
    files = grow(tmp_path / "new", {"a": b"a" * 5000, "d/b+x": b"b", "l": "a"})
    full = release_bundle.build_full(tmp_path / "new", files, tmp_path / "full")
    data = (tmp_path / "full").read_bytes()
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "state.db").write_bytes(b"state")
    (tmp_path / "state.db").chmod(0o600)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "token").write_text("secret-token")
    return Job(
        kind="full",
        codec=full.codec,
        bundle=tmp_path / "full",
        bundle_sha256=hashlib.sha256(data).hexdigest(),
        bundle_length=len(data),
        destination=tmp_path / "out",
        files=files,
        tree=tree_id(files),
    )


@pytest.fixture(autouse=True)
def _needs_landlock():
    if not landlock.version():
        refuse("this kernel has no Landlock")


def state(root):
    """Return everything about the files of a folder, times and modes included."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        if "out" in path.relative_to(root).parts[:1]:
            continue
        status = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[path] = (
            status.st_mode,
            status.st_uid,
            status.st_mtime_ns,
            status.st_nlink,
            data,
            tuple(os.listxattr(path, follow_symlinks=False)),
        )
    return found


def attacked(job, payload, **kernel):
    """Run a job with a payload in it; return the report, or the error."""
    try:
        return parent.run(job, argv=command(payload, MACHINE, **kernel))
    except UpdaterError as error:
        return error


FILES = """
def attack(job, fd):
    path, folder = {path!r}, {folder!r}
    inside = os.open(".", os.O_RDONLY, dir_fd=job.destination)
    tries = (
        lambda: os.chmod(path, 0o666),
        lambda: os.fchmod(fd, 0o666),
        lambda: os.fchmod(job.destination, 0o777),
        lambda: os.chmod("..", 0o777, dir_fd=inside),
        lambda: os.utime(path, (1, 1)),
        lambda: os.utime(fd, (1, 1)),
        lambda: os.chown(path, 12345, 12345),
        lambda: os.setxattr(path, "user.x", b"x"),
        lambda: os.setxattr(fd, "user.x", b"x"),
        lambda: os.removexattr(path, "user.y"),
        lambda: os.truncate(path, 0),
        lambda: os.unlink(path),
        lambda: os.rename(path, path + "2"),
        lambda: os.link(path, "stolen", dst_dir_fd=inside),
        lambda: os.symlink("/etc", "../link", dir_fd=inside),
        lambda: os.mkdir("../made", dir_fd=inside),
        lambda: os.mkfifo("pipe", dir_fd=inside),
        lambda: os.open("../made", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inside),
        lambda: os.open(path, os.O_WRONLY),
        lambda: os.open(path, os.O_RDONLY),
        lambda: os.listdir(folder),
        lambda: os.open("/proc/self/mem", os.O_RDWR),
        lambda: os.open("/dev/tty", os.O_RDWR),
        lambda: fcntl.ioctl(job.destination, 0x40086602, b"\\0" * 8),
    )
    for number, work in enumerate(tries):
        try:
            work()
        except OSError:
            continue
        raise SystemExit(100 + number)
"""


def test_no_file_outside_is_changed_in_any_way(tmp_path, job):
    """chmod, utime, chown, xattr, links: by path, and by a descriptor that it has."""
    before = state(tmp_path)
    places = {"path": f"{tmp_path}/state.db", "folder": f"{tmp_path}/precious"}
    report = attacked(job, FILES.format(**places) + HONEST)

    assert before == state(tmp_path)
    assert not isinstance(report, UpdaterError), report
    assert not verify_tree(job.destination, job.files)


PROCESSES = """
def attack(job, fd):
    parent = os.getppid()
    half = struct.pack("QQ", 0, 0)
    tries = (
        lambda: resource.prlimit(parent, resource.RLIMIT_FSIZE, (0, 0)),
        lambda: resource.prlimit(parent, resource.RLIMIT_NPROC, (0, 0)),
        lambda: resource.prlimit(parent, resource.RLIMIT_NPROC),
        lambda: os.kill(parent, signal.SIGSTOP),
        lambda: os.kill(parent, 0),
        lambda: os.kill(-1, signal.SIGTERM),
        lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0),
        lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        lambda: os.sched_setaffinity(parent, [0]),
        lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
        lambda: os.setpgid(parent, 0),
        lambda: os.fork(),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.execv("/bin/true", ["true"]),
        lambda: check(libc.ptrace(16, parent, 0, 0)),
        lambda: check(libc.process_vm_writev(parent, half, 1, half, 1, 0)),
        lambda: check(libc.prctl(36, 0, 0, 0, 0)),
        lambda: check(libc.syscall(251, 3, 1, parent, 0)),
        lambda: socket.socket(socket.AF_UNIX),
        lambda: os.memfd_create("x"),
        lambda: os.eventfd(0),
        lambda: check(libc.syscall(248, b"user", b"x", b"y", 1, -2)),
        lambda: check(libc.shmget(1, 4096, 0o1600)),
        lambda: os.sched_yield() or check(libc.sethostname(b"x", 1)),
    )
    for number, work in enumerate(tries):
        try:
            work()
        except OSError:
            continue
        raise SystemExit(100 + number)

def check(answer):
    if answer < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""


def test_no_other_process_is_steered_and_none_started(job):
    """prlimit of the daemon, signals, priorities, ptrace; fork, exec, sockets, keys."""
    limits = [
        resource.getrlimit(n) for n in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
    ]
    report = attacked(job, PROCESSES + HONEST)

    assert limits == [
        resource.getrlimit(n) for n in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)
    ]
    assert not isinstance(report, UpdaterError), report


def test_no_descriptor_is_inherited(tmp_path, job):
    """Not the product's lock, nor what its parent forgot to close."""
    kinds = """
def attack(job, fd):
    kinds = []
    for number in range(64):
        try:
            kinds.append(stat.S_IFMT(os.fstat(number).st_mode))
        except OSError:
            continue
    # pipe in and out, /dev/null, bundle twice, destination, /proc/self/status
    expected = [stat.S_IFIFO] * 2 + [stat.S_IFCHR, stat.S_IFDIR] + [stat.S_IFREG] * 3
    if sorted(kinds) != sorted(expected):
        raise SystemExit(len(kinds))
"""
    with locks.hold(tmp_path / "lock", subject="the product"):
        left = os.open(tmp_path / "lock", os.O_RDONLY)
        os.set_inheritable(left, True)
        try:
            report = attacked(job, kinds + HONEST)
        finally:
            os.close(left)

    assert not isinstance(report, UpdaterError), report


MEMORY = """
def attack(job, fd):
    for name in ("mem", "maps", "environ", "fd/0", "cwd/x", "root/etc/passwd"):
        for flags in (os.O_RDWR, os.O_RDONLY):
            try:
                os.open(f"/proc/{os.getppid()}/{name}", flags)
            except OSError:
                continue
            raise SystemExit(100)
"""


@pytest.mark.parametrize("without", [(), ("landlock",), ("landlock", "namespaces")])
def test_the_workers_memory_is_out_of_reach_without_landlock_too(job, without):
    """Through /proc: whoever writes there is the worker."""
    report = attacked(job, MEMORY + HONEST, without=without)

    assert not isinstance(report, UpdaterError), report


GRANDCHILD = """
def attack(job, fd):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            # holds the pipe, and waits for the tree to be whole
            while True:
                try:
                    again = os.open("a", os.O_WRONLY, dir_fd=job.destination)
                    os.pwrite(again, b"!", 0)
                except OSError:
                    pass
        os._exit(0)
"""


def test_a_grandchild_does_not_outlive_the_job(tmp_path, job):
    """Where nothing filters its calls: it is dead before the tree is hashed.

    It holds the pipe that its parent is heard through, too: who waits for that to end
    waits for ever.
    """
    if os.geteuid() != 0:
        refuse("only root is not bound by the number of processes")
    errors = [
        attacked(job, GRANDCHILD + HONEST, without=("landlock", "seccomp")),
    ]
    (error,) = errors
    assert not _running(job.destination)
    # what it wrote until then is found
    if isinstance(error, UpdaterError):
        assert "bad_output" == error.code
    else:
        assert not verify_tree(job.destination, job.files)


def _running(destination):
    """Return the processes that have a folder, or something in it, open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if int(folder.parent.name) == os.getpid():
            continue
        try:
            links = [os.readlink(entry) for entry in folder.iterdir()]
        except OSError:
            continue
        found += [folder for link in links if link.startswith(str(destination))]
    return found


WORDS = {
    "its error": "raise RejectedError(read(), means=read(), do=read(), code=read())",
    "another error": "raise TransientError(read())",
    "a trace": "raise ValueError(read())",
    "stderr": "os.write(2, read().encode() * 10000); os.abort()",
    "stdout": "os.write(1, read().encode() * 100)",
    "150 MiB of stdout": "for n in range(3200): os.write(1, b'secret-' * 8192)",
    "150 MiB of an error": "raise RejectedError(read() * 13_000_000)",
    "150 MiB of a report": "return Made(1, 1, script=read().encode() * (1 << 24))",
    "150 MiB after the report": "after()",
    "an endless number": "return Made(1 << 70, 1)",
}  # fmt: skip


@pytest.mark.parametrize("how", WORDS)
def test_no_byte_of_what_it_says_reaches_a_person(tmp_path, job, how):
    """A token that it read must not stand in a status that everybody may read."""
    payload = f"""
def read():
    fd = os.open({str(tmp_path / "precious" / "token")!r}, os.O_RDONLY)
    return os.read(fd, 100).decode()
def after():
    os.write(1, struct.pack("<cQIQQII", b"M", *[0] * 6))
    for n in range(3200):
        os.write(1, b"secret-" * 8192)
def apply(job, fd, progress):
    {WORDS[how]}
    return Made(0, 0)
"""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = attacked(job, payload, without=("landlock",))  # with it, nothing is read

    assert isinstance(error, UpdaterError)
    assert "secret" not in str(error)
    assert len(str(error)) < 500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, "KiB"


def test_a_token_cannot_even_be_read(tmp_path, job):
    """What it needs is open when the cage closes."""
    payload = f"""
def attack(job, fd):
    for path in ({str(tmp_path / "precious" / "token")!r}, "/etc/passwd",
                 "/proc/1/stat", "/proc/self/environ", os.__file__):
        try:
            os.open(path, os.O_RDONLY)
        except OSError:
            continue
        raise SystemExit(100)
"""
    report = attacked(job, payload + HONEST)

    assert not isinstance(report, UpdaterError), report


LIES = {
    "other bytes": ('put("a", b"!" * 5000)', "bad_output"),
    "nothing at all": ("pass", "bad_output"),
    "another file": ('put("evil", b"x")', "wrong_tree"),
    "a folder more": ('os.mkdir("evil", 0o755, dir_fd=job.destination)', "wrong_tree"),
    "a deep folder": ("deep(job.destination)", "wrong_tree"),
}


@pytest.mark.parametrize("name", LIES)
def test_what_it_claims_to_have_made_is_not_believed(job, name):
    """It says that all is well: the parent hashes what is there."""
    attack, code = LIES[name]
    payload = f"""
def put(name, data):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=FOLDER[0])
    os.write(fd, data)
def deep(at):
    for n in range(150):
        os.mkdir("a", 0o755, dir_fd=at)
        at = os.open("a", os.O_RDONLY, dir_fd=at)
FOLDER = []
def apply(job, fd, progress):
    FOLDER.append(job.destination)
    {attack}
    return Made(5001, 2)
"""
    error = attacked(job, payload)

    assert isinstance(error, RejectedError)
    assert code == error.code


def test_what_an_earlier_run_had_made_is_hashed_again(tmp_path, job):
    """It was right before this process could write to it."""
    (tmp_path / "out" / "a").write_bytes(b"a" * 5000)
    (tmp_path / "out" / "a").chmod(0o644)
    payload = """
def attack(job, fd):
    os.write(os.open("a", os.O_WRONLY, dir_fd=job.destination), b"!")
"""
    error = attacked(replaced(job, done=frozenset({"a"})), payload + HONEST)

    assert isinstance(error, RejectedError)
    assert "bad_output" == error.code


def test_the_layers_in_force_are_told(job):
    """Also where one is missing: nobody has to guess how the cage is built."""
    told = []
    payload = "def attack(job, fd): pass\n" + HONEST
    for without in ((), ("landlock",), ("seccomp",), ("namespaces",)):
        (job.destination / "a").unlink(missing_ok=True)
        for path in sorted(job.destination.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        parent.run(
            job,
            argv=command(payload, MACHINE, without=without),
            on_confined=told.append,
        )
    every, no_landlock, no_seccomp, no_namespaces = told

    assert (every.landlock_abi > 0, every.seccomp) == (True, True)
    assert no_landlock.landlock_abi == 0
    assert not no_landlock.writes_bounded
    assert not no_seccomp.seccomp
    assert not no_namespaces.namespaces
    assert (no_namespaces.landlock_abi, no_namespaces.seccomp) == (
        every.landlock_abi,
        True,
    )
