# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL, Debian's, in a folder of its own, and as nobody in particular."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from fakes.tools import need


def programs() -> Path:
    """Return the folder of `initdb` and `postgres`: Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return (found[-1] if found else Path(need("initdb"))).parent


class PostgresProcess:
    """A server on a socket in its folder; it listens on no address."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = programs()
        self.process: subprocess.Popen | None = None
        # PostgreSQL refuses to run as root
        root = os.geteuid() == 0
        self.user = "postgres" if root and _exists("postgres") else None
        if root and self.user is None:
            self.user = "nobody"
        self.name = self.user or pwd.getpwuid(os.geteuid()).pw_name

    @property
    def url(self) -> str:
        return f"postgresql://{self.name}@/postgres?host={self.folder}"

    def _run(self, *words):
        return subprocess.run(words, check=True, capture_output=True, user=self.user)

    def init(self):
        if self.user:
            for parent in self.folder.parents:
                if parent.owner() == "root" and parent.stat().st_mode & 0o1 == 0:
                    parent.chmod(parent.stat().st_mode | 0o011)
            shutil.chown(self.folder, self.user)
        self._run(
            self.bin / "initdb", "-D", self.folder / "data", "-A", "trust", "-E",
            "UTF8", "--no-sync", "--locale=C",
        )  # fmt: skip
        return self

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self._start(log)
        end = time.monotonic() + 60
        ready = [self.bin / "pg_isready", "-q", "-h", self.folder, "-U", self.name]
        while subprocess.run(ready, check=False).returncode != 0:
            assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        return self

    def _start(self, log):
        self.process = subprocess.Popen(
            [
                *(self.bin / "postgres", "-D", self.folder / "data"),
                *("-k", self.folder, "-c", "listen_addresses="),
                *("-c", "shared_buffers=32MB", "-c", "max_connections=20"),
                *("-c", "jit=off", "-c", "autovacuum=off"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            user=self.user,
            start_new_session=True,
            cwd=self.folder,
        )

    def kill(self):
        """SIGKILL all of it at this instant, as a power cut would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    @contextmanager
    def stopped(self):
        """It takes connections, as its kernel does, and answers nothing."""
        pid = self.process.pid
        os.kill(pid, signal.SIGSTOP)  # first: no further one is born
        # each is the leader of a group of its own
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pids = [*map(int, children), pid]
        try:
            for one in pids:
                os.kill(one, signal.SIGSTOP)
            yield
        finally:
            for one in pids:
                os.kill(one, signal.SIGCONT)

    def run(self, sql: str, values=None):
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(sql, values)

    def empty(self):
        self.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def flush(self):
        """The same, as a Redis calls it."""
        self.empty()

    def __enter__(self):
        return self.init().start()

    def __exit__(self, *_):
        self.stop()


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
