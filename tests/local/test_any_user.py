# SPDX-License-Identifier: Apache-2.0
"""What any user of the machine may try: locks, numbers in files, names in /tmp."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.people import DAEMON, STRANGER, at_work, command, give, run_as
from fakes.waiting import eventually

COMMAND = (sys.executable, "-I", "-m", "updaterd")

LOCKER = """
import fcntl, struct, sys
held = []
for path in sys.argv[1:]:
    try:
        file = open(path)
        request = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
    except OSError:
        continue
    held.append(file)
print("up", flush=True)
sys.stdin.read()
"""


class Own:
    """A daemon of its own user, with nothing to do and nobody to hear from."""

    def __init__(self, ground: Path):
        self.ground = ground
        for name in ("state", "cache", "run"):
            (ground / name).mkdir()
            give(ground / name, DAEMON, 0o755 if name == "run" else 0o700)
        (ground / "root.json").write_text("{}")
        self.config = ground / "updaterd.toml"
        self.config.write_text(
            '[feed]\nurl = "http://127.0.0.1:9/v1/events"\n'
            f'[trust]\nroot = "{ground}/root.json"\n'
            'repository = "http://127.0.0.1:9/repo"\n'
        )
        self.options = [
            f"--config={self.config}",
            *(f"--{kind}-dir={ground / name}" for kind, name in (
                ("state", "state"), ("cache", "cache"), ("runtime", "run"))),
        ]  # fmt: skip
        self.process = None

    def start(self):
        """Start it; when it has published how things stand, it is up."""
        self.process = subprocess.Popen(
            command(DAEMON, *COMMAND, "run", *self.options),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        eventually(lambda: self.is_up() or self.process.poll() is not None)
        return self.process.poll()

    def is_up(self) -> bool:
        path = self.ground / "run" / "status.json"
        try:
            return json.loads(path.read_text())["daemon"]["pid"] == self.process.pid
        except FileNotFoundError:
            return False

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return said.decode()

    def status(self, uid: int) -> dict:
        done = run_as(uid, *COMMAND, "status", "--json", *self.options, expect=None)
        return json.loads(done.stdout)


@pytest.fixture
def daemon(ground):
    found = Own(ground)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.communicate()


def test_a_read_lock_on_whatever_a_stranger_may_open(daemon):
    """One kept the daemon from starting; two starts like that condemned a release."""
    daemon.start()
    daemon.stop()
    files = [path for path in (daemon.ground / "run").iterdir() if path.is_file()]
    assert {"lock", "status.json"} <= {path.name for path in files}
    with at_work(STRANGER, LOCKER, *files):
        assert daemon.start() is None
        for uid in (STRANGER, DAEMON, 0):
            assert daemon.status(uid)["daemon"]["running"], uid


def test_lock_files_that_an_older_release_left_open_to_all(daemon):
    lock = daemon.ground / "run" / "lock"
    lock.touch(0o644)
    lock.chmod(0o644)
    give(lock, DAEMON)
    daemon.start()
    assert 0o600 == stat.S_IMODE(lock.stat().st_mode)
    assert 0o600 == stat.S_IMODE((daemon.ground / "run" / "wake").stat().st_mode)


def test_a_killed_daemon_does_not_run_whoever_asks(daemon):
    """What it published stays; another process may have its number by now."""
    daemon.start()
    path = daemon.ground / "run" / "status.json"
    published = json.loads(path.read_text())
    assert published["daemon"]["pid"] == daemon.process.pid
    daemon.stop(signal.SIGKILL)
    assert not daemon.status(STRANGER)["daemon"]["running"]
    published["daemon"]["pid"] = os.getpid()
    path.write_text(json.dumps(published))
    assert not daemon.status(STRANGER)["daemon"]["running"]
    give(path, DAEMON)
    with at_work(DAEMON, "print('up', flush=True); input()") as other:
        published["daemon"]["pid"] = other.pid
        path.write_text(json.dumps(published))
        assert not daemon.status(STRANGER)["daemon"]["running"]


@pytest.mark.parametrize("pid", [-1, 0, 1, "victim"])
def test_root_signals_nobody_whom_a_file_names(daemon, tmp_path, pid):
    """-1 is every process of the machine."""
    victim = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; print('up', flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
        process_group=0,
    )
    victim.stdout.readline()
    lock, told = daemon.ground / "run" / "lock", daemon.ground / "run" / "status.json"
    lock.touch()
    document = {"schema": 1, "daemon": {"pid": victim.pid if pid == "victim" else pid}}
    told.write_text(json.dumps(document))
    for path in (lock, told):
        give(path, DAEMON)
    words = [*COMMAND, "hold", "--for=1d", *daemon.options]
    # in its own world of processes: what the attack would kill is not this machine
    world = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    try:
        with at_work(
            DAEMON,
            LOCKER.replace("open(path)", "open(path, 'r+')").replace("RDLCK", "WRLCK"),
            lock,
        ):
            sentinel = (
                'sleep 300 & "$@"; code=$?; kill -0 $! || exit 99; kill $!; exit $code'
            )
            prefix = [] if pid == "victim" else [*world, "sh", "-c", sentinel, "sh"]
            done = subprocess.run(
                [*prefix, *words],
                capture_output=True,
                text=True,
                check=False,
                start_new_session=True,  # 0 is everybody in a process group
            )
        assert 0 == done.returncode, done.stderr
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.communicate()


def test_the_daemon_is_woken_by_its_user_and_by_root_only(daemon):
    """The socket says nothing but that somebody came."""
    from updaterd.system import wake

    daemon.start()
    code = (
        "import sys; from pathlib import Path; from updaterd.system import wake; "
        "sys.exit(not wake.nudge(Path(sys.argv[1])))"
    )
    words = [sys.executable, "-I", "-c", code, daemon.ground / "run"]
    run_as(DAEMON, *words)
    assert wake.nudge(daemon.ground / "run")
    assert 1 == run_as(STRANGER, *words, expect=None).returncode
    daemon.stop(signal.SIGKILL)
    assert not wake.nudge(daemon.ground / "run")


def test_a_socket_is_heard_and_a_full_one_is_no_trap(ground):
    from updaterd.system import wake

    with wake.listen(ground) as ear:
        assert wake.nudge(ground)
        wake.hear(ear)
        with pytest.raises(BlockingIOError):
            ear.accept()
    with wake.listen(ground) as again:  # in place of the one that is left
        assert wake.nudge(ground)
        wake.hear(again)


def test_a_name_in_tmp_that_another_took(ground):
    """`/tmp/runtime-UID` of another user: commands work, and nothing is made there."""
    trap = Path(f"/tmp/runtime-{STRANGER}")  # noqa: S108 - the attack
    trap.mkdir(mode=0o700)
    give(trap, DAEMON)
    home = ground / "home"
    home.mkdir()
    give(home, STRANGER)
    (ground / "root.json").write_text("{}")
    (ground / "updaterd.toml").write_text(
        '[feed]\nurl = "http://127.0.0.1:9/v1/events"\n'
        f'[trust]\nroot = "{ground}/root.json"\nrepository = "http://127.0.0.1:9/repo"\n'
    )
    try:
        done = run_as(
            STRANGER, *COMMAND, "status", f"--config={ground}/updaterd.toml",
            env={"HOME": str(home)}, expect=4,
        )  # fmt: skip
        assert "the daemon is not running" in done.stdout
        assert [] == list(trap.iterdir())
    finally:
        trap.rmdir()


@pytest.mark.parametrize("mode", [0o777, 0o755])
def test_a_session_folder_that_is_not_this_users_alone_is_not_used(ground, mode):
    from updaterd.config import places

    folder = ground / "session"
    folder.mkdir()
    give(folder, STRANGER if mode == 0o755 else 0, mode)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    try:
        assert places._session() != folder
        give(folder, 0, 0o700)
        assert places._session() == folder
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before


def test_a_lock_that_is_held_says_so_to_its_user_and_to_root(ground):
    """And to nobody else: who could ask could also take it."""
    from updaterd.system import locks

    with locks.hold(ground / "lock", subject="x"):
        assert locks.is_held(ground / "lock")
        code = (
            "import sys; from pathlib import Path; from updaterd.system import locks; "
            "locks.is_held(Path(sys.argv[1]))"
        )
        words = [sys.executable, "-I", "-c", code, ground / "lock"]
        done = run_as(STRANGER, *words, expect=1)
    assert "PermissionError" in done.stderr
