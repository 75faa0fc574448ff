# SPDX-License-Identifier: Apache-2.0
"""Root types a command: what the daemon's user can write gets nothing of root's.

Real users, a real terminal.
"""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.people import DAEMON, STRANGER, give, give_all, run_as
from fakes.tools import need

PRIVATE = Path(__file__).parents[2] / "packaging/private"

# what the daemon's user would put in place of its own code, as `main` of `updaterd`
SPY = """
import fcntl, json, os, sys, termios
def look():
    found = {"uid": os.getresuid(), "groups": os.getgroups(), "cwd": os.getcwd(),
             "environment": dict(os.environ), "typed": [], "umask": oct(os.umask(0o22))}
    names = [n for n in os.listdir("/proc/self/fd")]
    there = [n for n in names if os.path.exists("/proc/self/fd/" + n)]
    found["files"] = sorted(int(n) for n in there)
    found["session"] = os.getsid(0) == os.getpid()
    for place in (0, 1, 2, "/dev/tty"):
        try:
            fd = place if isinstance(place, int) else os.open(place, os.O_RDWR)
            fcntl.ioctl(fd, termios.TIOCSTI, b"x")
            found["typed"].append(place)
        except OSError:
            found["typed"].extend([place] if isinstance(place, int) and os.isatty(place)
                                  else [])
    return json.dumps(found)
print(look(), flush=True)
"""
RUN = """
import os, pwd, sys
sys.path.insert(0, sys.argv[1])
import _updaterd_user
uid = int(sys.argv[2])
owner = pwd.struct_passwd(("daemon", "x", uid, uid, "", "/nonexistent", "/bin/false"))
sys.exit(_updaterd_user.run(owner, sys.argv[3:]))
"""
CLEAN = (sys.executable, "-I", "-c", RUN, PRIVATE, str(DAEMON))


@pytest.fixture
def python():
    """A Python that the daemon's user can run too; this one may be root's alone."""
    closed = [
        p for p in Path(sys.executable).resolve().parents if not p.stat().st_mode & 1
    ]
    return need("/usr/bin/python3") if closed else sys.executable


def on_a_terminal(argv, **more) -> tuple[int, str]:
    """Run a command on a terminal of its own; return exit code and what it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.environ.update(more.get("env", {}))
            os.chdir(more.get("cwd", "/"))
            os.execv(argv[0], [str(word) for word in argv])  # noqa: S606 - no shell
        finally:
            os._exit(127)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_terminal_environment_and_folder_stay_roots(ground, python):
    """TIOCSTI types a command into root's shell; passphrases stand in variables."""
    secrets = {"UPDATERD_PASSPHRASE_ROOT": "secret", "SSH_AUTH_SOCK": "/run/agent",
               "https_proxy": "http://me:secret@proxy:1", "LC_TIME": "C"}  # fmt: skip
    here = ground / "roots"
    here.mkdir(mode=0o700)
    code, shown = on_a_terminal(
        [*CLEAN, python, "-IS", "-c", SPY], env=secrets, cwd=here
    )
    assert 0 == code, shown
    found = json.loads(shown)
    assert [DAEMON] * 3 == found["uid"]
    assert [DAEMON] == found["groups"]
    assert "/" == found["cwd"]
    assert [] == found["typed"]
    assert [0, 1, 2] == found["files"]
    assert found["session"]
    assert "0o22" == found["umask"]
    assert not secrets.keys() & found["environment"].keys() - {"LC_TIME"}
    assert "secret" not in json.dumps(found)
    assert "C" == found["environment"]["LC_TIME"]


def test_what_it_says_does_not_steer_roots_terminal(python):
    said = "\\x1b]0;title\\x07\\x9b31m\\u202eabc \\t\\x1b[2J\\x1b[H page"
    words = [*CLEAN, python, "-IS", "-X", "utf8", "-c", f"print('{said}')"]
    code, shown = on_a_terminal(words)
    assert 0 == code
    assert r"\x1b]0;title\x07\x9b31m\u202eabc" in shown
    assert "\x1b[2J\x1b[H page" in shown  # `status --watch`
    piped = subprocess.run(words, capture_output=True, check=True).stdout
    assert piped.startswith(b"\x1b]0;title")  # for scripts: as it is


def test_exit_codes_signals_and_closed_pipes_come_through(python):
    def run(code, **more):
        return subprocess.run([*CLEAN, python, "-IS", "-c", code], check=False, **more)

    assert 20 == run("import sys; sys.exit(20)").returncode
    assert 137 == run("import os; os.kill(os.getpid(), 9)").returncode
    # one that leaves a child behind with the pipes does not keep root waiting
    left = "import subprocess; subprocess.Popen(['sleep', '5']); print('done')"
    done = run(left, capture_output=True, timeout=30)
    assert b"done\n" == done.stdout


def test_an_interrupt_reaches_the_child(python):
    code = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen(
        [*CLEAN, python, "-IS", "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert b"up\n" == child.stdout.readline()
    child.terminate()
    assert 143 == child.wait(30)
    child.communicate()


@pytest.fixture
def typed(ground):
    """The package's command, as root types it; the state directory is the daemon's."""
    for name in ("state", "cache", "run"):
        (ground / name).mkdir()
        give(ground / name, DAEMON)
    (ground / "root.json").write_text("{}")
    config = ground / "updaterd.toml"
    config.write_text(
        '[feed]\nurl = "http://127.0.0.1:9/v1/events"\n'
        f'[trust]\nroot = "{ground}/root.json"\nrepository = "http://127.0.0.1:9/repo"\n'
    )
    places = [f"--{kind}-dir={ground / name}" for kind, name in (
        ("state", "state"), ("cache", "cache"), ("runtime", "run"))]  # fmt: skip
    wrapper = (
        "import pwd, runpy, sys; sys.path.insert(0, sys.argv[1]);"
        "import _updaterd_user as user;"
        "pwd.getpwuid = lambda uid: pwd.struct_passwd("
        "('daemon', 'x', uid, uid, '', '/nonexistent', '/bin/false'));"
        "run = user.run; user.run = lambda owner, argv, **more: print(owner.pw_uid, "
        "*argv[3:], more) or 0;"
        "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )

    def run(*words, **more):
        argv = [sys.executable, "-I", "-c", wrapper, PRIVATE, PRIVATE / "updaterd"]
        return subprocess.run(
            [*argv, *words, f"--config={config}", *places],
            capture_output=True, text=True, check=False, cwd=ground, **more,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    "words", [("status",), ("history",), ("hold", "--for", "1d"), ("update",),
              ("check",), ("verify", "acme"), ("rollback", "acme"), ("unhold",)],
)  # fmt: skip
def test_whose_state_it_is_does_the_work(typed, words):
    """Also with `--state-dir`; what only reads is the packaged release's to do."""
    done = typed(*words)
    assert 0 == done.returncode, done.stderr
    uid, module, said, *_ = done.stdout.split()
    assert (str(DAEMON), "updaterd", words[0]) == (uid, module, said)
    assert ("UPDATERD_PACKAGED" in done.stdout) == (words[0] in ("status", "history"))


def test_code_on_standard_input_is_handed_on_and_nothing_else_is(typed, python):
    """`updaterd enroll - < code`: the list of processes is everybody's to read."""
    assert "b'7GK2M'" in typed("enroll", "-", input="7GK2M").stdout
    for words in (("enroll",), ("enroll", "7GK2M"), ("update",)):
        assert "'typed': b''" in typed(*words, input="secret").stdout

    handed = CLEAN[3].replace("sys.argv[3:])", 'sys.argv[3:], typed=b"7GK2M")')
    assert handed != CLEAN[3]
    says = "import sys; print(sys.stdin.read())"
    argv = [*CLEAN[:3], handed, *CLEAN[4:], python, "-IS", "-c", says]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"7GK2M\n"


def test_a_report_lies_where_root_named_it(typed, ground):
    """The daemon's user makes it, in `/` and without a right to write there."""
    done = typed("report")
    assert 0 == done.returncode, done.stderr
    file = ground / "updaterd-report.tar.gz"
    assert 0 == file.stat().st_uid
    assert 0o600 == file.stat().st_mode & 0o777
    uid, module, *words = file.read_text().split()
    assert (str(DAEMON), "updaterd", "report") == (uid, module, words[0])
    assert "--output -" in " ".join(words)

    assert "--output" not in typed("report", "-o", "-").stdout
    refused = typed("report", "--output=none/report")
    assert 1 == refused.returncode
    assert "none/report cannot be written" in refused.stderr


def test_roots_own_state_stays_roots(typed, ground):
    for name in ("state", "cache", "run"):
        give(ground / name, 0)
    done = typed("hold", "--for", "1d")
    assert 0 == done.returncode, done.stderr
    assert 0 == (ground / "state" / "state.db").stat().st_uid


CHOOSE = """
import runpy, sys
space = runpy.run_path(sys.argv[1])
print(space["choose"](own=sys.argv[2]))
"""


@pytest.fixture
def own_release(ground):
    """A self-updated release, all of it the daemon's user's."""
    own = ground / "updaterd"
    (own / "releases" / "2" / "updaterd").mkdir(parents=True)
    (own / "releases" / "2" / "updaterd" / "__main__.py").write_text("")
    (own / "current").symlink_to("releases/2")
    return give_all(own, DAEMON)


def chosen(uid, own, **env):
    site = own.parent / "site.py"
    shutil.copy(PRIVATE / "_updaterd_site.py", site)
    site.chmod(0o644)
    words = [sys.executable, "-I", "-c", CHOOSE, site, own]
    return run_as(uid, *words, env=env).stdout.strip()


def test_only_its_owner_runs_a_self_updated_release(own_release):
    assert f"{own_release}/releases/2" == chosen(DAEMON, own_release)
    for uid in (0, STRANGER):
        assert chosen(uid, own_release).startswith("/usr/lib/updaterd")
    only_reads = chosen(DAEMON, own_release, UPDATERD_PACKAGED="1")
    assert only_reads.startswith("/usr/lib/updaterd")


def test_current_of_the_daemons_user_that_leads_to_a_strangers_folder(own_release):
    """He owns that one; he never chose to run it by typing `updaterd`."""
    theirs = own_release.parent / "home"
    shutil.copytree(own_release / "releases" / "2", theirs)
    give_all(theirs, STRANGER)
    (own_release / "current").unlink()
    (own_release / "current").symlink_to(theirs)
    assert chosen(STRANGER, own_release).startswith("/usr/lib/updaterd")
    assert chosen(DAEMON, own_release).startswith("/usr/lib/updaterd")


@pytest.mark.parametrize("attack", ["open", "linked", "elsewhere", "given"])
def test_a_release_that_others_could_change_is_not_run(own_release, attack):
    release = own_release / "releases" / "2"
    if attack == "open":
        release.chmod(0o777)
    elif attack == "linked":
        release.rename(own_release / "there")
        release.symlink_to(own_release / "there")
    elif attack == "elsewhere":
        shutil.move(own_release / "releases", own_release.parent / "there")
        (own_release / "releases").symlink_to(own_release.parent / "there")
    else:
        give(own_release / "releases", STRANGER)
    assert chosen(DAEMON, own_release).startswith("/usr/lib/updaterd")


def test_the_self_test_typed_by_root_runs_as_the_releases_owner(ground):
    """A message tells root to run it by hand: what it imports is another user's."""
    release = ground / "release"
    (release / "updaterd").mkdir(parents=True)
    proof = ground / "proof"
    (release / "updaterd" / "__init__.py").write_text(
        f"import os; open({str(proof)!r}, 'a').write(str(os.geteuid()))"
    )
    give_all(release, DAEMON)
    code = (
        "import pwd, runpy, sys; sys.path.insert(0, sys.argv[1]);"
        "import _updaterd_user as user;"
        "pwd.getpwuid = lambda uid: pwd.struct_passwd("
        "('daemon', 'x', uid, uid, '', '/nonexistent', '/bin/false'));"
        "user.run = lambda owner, argv, **more: print(owner.pw_uid, more) or 0;"
        "runpy.run_path(sys.argv[1] + '/self_test.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, PRIVATE],
        env={"UPDATERD_RELEASE": str(release)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{DAEMON} {{'keep': ['UPDATERD_RELEASE']}}" == done.stdout.strip()
    assert not proof.exists()


def test_the_guard_typed_by_root_runs_as_the_states_owner(ground):
    state = ground / "state"
    state.mkdir()
    (state / "guard.json").write_text("{}")
    give_all(state, DAEMON)
    code = (
        "import pwd, runpy, sys; sys.path.insert(0, sys.argv[1]);"
        "import _updaterd_user as user;"
        "pwd.getpwuid = lambda uid: pwd.struct_passwd("
        "('daemon', 'x', uid, uid, '', '/nonexistent', '/bin/false'));"
        "user.run = lambda owner, argv, **more: print(owner.pw_uid, argv[3:]) or 0;"
        "sys.argv = ['guard', 'starting'];"
        f"runpy.run_path({str(PRIVATE / 'guard.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, PRIVATE],
        env={"STATE_DIRECTORY": str(state)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert f"{DAEMON} ['starting']" == done.stdout.strip(), done.stderr
    assert "{}" == (state / "guard.json").read_text()
