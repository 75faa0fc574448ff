# SPDX-License-Identifier: Apache-2.0
"""The users of a machine, and what they do there: real ids, real processes."""

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from fakes.tools import refuse
from fakes.waiting import eventually

import updaterd

STRANGER = 54321  # an ordinary user
APPLICATION = 54322
DAEMON = 54323


@cache
def _closed() -> tuple[str, tuple[str, ...]] | None:
    """Return a folder that keeps others from this Python, and what they need in it.

    It may stand where others may not go (/root): then they see it in a view of the
    file system of their own, in which that folder is open, and empty but for it.
    """
    need = {sys.base_prefix, sys.prefix, str(Path(updaterd.__file__).parents[1])}
    closed = {
        str(path)
        for folder in need
        for path in (*Path(folder).parents, Path(folder))
        if not path.stat().st_mode & 0o001
    }
    if not closed:
        return None
    top = min(closed, key=len)
    inside = sorted(f for f in need if f.startswith(top + "/"))
    return top, tuple(f for f in inside if not f.startswith(tuple(
        other + "/" for other in inside)))  # fmt: skip


def command(uid: int, *argv: object) -> list[str]:
    """Return the command that runs `argv` as a user, in no other group."""
    words = [str(word) for word in argv]
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *words]
    if (closed := _closed()) is None:
        return become
    top, inside = closed
    binds = "".join(
        f'mkdir "$view/{n}"; mount --bind "{folder}" "$view/{n}"; '
        for n, folder in enumerate(inside)
    )
    moves = "".join(
        f'mkdir -p "{folder}"; mount --move "$view/{n}" "{folder}"; '
        for n, folder in enumerate(inside)
    )
    script = (
        f'set -e; view=$(mktemp -d); mount -t tmpfs view "$view"; {binds}'
        f'mount -t tmpfs -o mode=755 open "{top}"; {moves}'
        'umount "$view"; rmdir "$view"; exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh", *become]


@cache
def can_be_others() -> None:
    """Go on only where a process can become another user, this Python included."""
    done = subprocess.run(
        command(STRANGER, sys.executable, "-c", "import updaterd"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        refuse(f"needs to run as other users: {done.stderr.strip()}")


def run_as(uid: int, *argv: object, expect: int | None = 0, env=None, **more):
    """Run a command as a user, from `/`, in an environment of its own."""
    done = subprocess.run(
        command(uid, *argv),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", **(env or {})},
        cwd="/",
        **more,
    )
    if expect is not None:
        assert expect == done.returncode, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done


def give(path: Path, uid: int, mode: int | None = None) -> Path:
    """Give a file or folder, not what is in it, to a user."""
    os.chown(path, uid, uid, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)
    return path


def give_all(path: Path, uid: int) -> Path:
    """Give a whole tree to a user."""
    for entry in (path, *path.rglob("*")):
        os.chown(entry, uid, uid, follow_symlinks=False)
    return path


@contextmanager
def at_work(uid: int, code: str, *words: object):
    """Have a user run Python code for as long as the block lasts.

    The code says `print("up", flush=True)` when it is at work.
    """
    child = subprocess.Popen(
        command(uid, sys.executable, "-IS", "-c", code, *words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    try:
        eventually(child.stdout.readline, event="the other user's process")
        yield child
    finally:
        child.kill()
        child.communicate()
