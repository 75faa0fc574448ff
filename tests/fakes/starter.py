# SPDX-License-Identifier: Apache-2.0
"""Runs `updaterd ...` in forks of a process that has imported it: a fifth of the time.

Most of a short command is its imports. The process that forks is as fresh as
`python -I` makes it, has no threads, and never runs a command itself: each command
has its own arguments, environment, directory and output, and ends as an interpreter
does. Tests of how a command starts (tests/e2e, tests/unit/cli) start it as typed.
"""

import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_MOST = 1 << 18


class Starter:
    """The process that forks, started when the first command is."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self.cpu_s = 0.0
        """What the commands cost: their parent is not this process."""

    def run(
        self, words: list[str], env: dict[str, str], within_s: float, hardware: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            words: its arguments.
            env: its environment.
            within_s: how long it may take.
            hardware: what the kernel is to call this machine's; "": as it does. Only
                the name is another: what is installed has to be what runs here.

        Raises:
            subprocess.TimeoutExpired: it took longer; it is killed.
        """
        if self._process is None:
            self._start()
        answers, far_end = socket.socketpair()
        with (
            answers,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            with far_end:
                descriptors = [far_end.fileno(), out.fileno(), err.fileno()]
                request = json.dumps([words, env, os.getcwd(), hardware]).encode()
                socket.send_fds(self._socket, [request], descriptors)
            answers.settimeout(within_s)
            with answers.makefile("rb") as lines:
                pid = int(lines.readline())
                try:
                    code, cpu_s = json.loads(lines.readline())
                except TimeoutError:
                    os.kill(pid, 9)
                    raise subprocess.TimeoutExpired(words, within_s) from None
            self.cpu_s += cpu_s
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return subprocess.CompletedProcess(words, code, *texts)

    def _start(self) -> None:
        near_end, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        with far_end:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__)), str(far_end.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[far_end.fileno()],
            )
        self._socket = near_end

    def close(self) -> None:
        """End the process: its socket is at its end."""
        if self._process is not None:
            self._socket.close()
            self._process.wait()
            self._process = self._socket = None


def serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request; return a command's words in its process, None at the end.

    A second fork waits for the first, so that commands can run side by side.
    """
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MOST, 3)
        if not message:
            return None
        if os.fork() == 0:
            requests.close()
            return _command(message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _command(message: bytes, descriptors: list[int]) -> list[str]:
    """Return in the command's process; the one that waits for it ends here."""
    answers, out, err = descriptors
    pid = os.fork()
    if pid:
        os.write(answers, b"%d\n" % pid)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        os.write(answers, json.dumps([code, usage.ru_utime + usage.ru_stime]).encode())
        os._exit(0)
    os.close(answers)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    words, env, folder, hardware = json.loads(message)
    if hardware:
        told = os.uname_result([*os.uname()[:4], hardware])
        os.uname = lambda: told
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    return words


def import_everything() -> None:
    """Import all of updaterd: it has threads and effects only when it is called."""
    import updaterd

    for module in pkgutil.walk_packages(updaterd.__path__, "updaterd."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def main() -> int:
    """Be the process that forks, and in its forks the command."""
    import_everything()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        words = serve(requests)
    if words is None:
        return 0
    from updaterd import __main__

    sys.argv = [__main__.__file__, *words]
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
