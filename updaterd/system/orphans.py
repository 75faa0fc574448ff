# SPDX-License-Identifier: Apache-2.0
"""As PID 1, in a container: go on in a child, and reap whom nobody waits for.

A process whose parent has ended becomes PID 1's; one that has ended itself stays until
PID 1 has waited for it. In a container that is us, and neither asyncio nor `subprocess`
waits for what they did not start. Waiting for everybody in the same process would take
from them what they wait for, so that PID 1 becomes a small process that does nothing
else: it hands signals on, and ends as the child does.

Run as a script by `hand_down`; it imports nothing of ours.
"""

import os
import signal
import sys

_HANDED_ON = frozenset({
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
})
_BY_A_PROCESS = 0  # si_code; above: the kernel's, as a terminal's Ctrl-C


def hand_down() -> None:
    """Return in a child if this is PID 1; the process itself becomes its keeper."""
    if os.getpid() != 1:
        return
    watched = os.environ.get("WATCHDOG_PID") == "1"
    # What comes from now on waits, and is handed on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*_HANDED_ON, signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if watched:
            os.environ["WATCHDOG_PID"] = str(os.getpid())
        return
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(child)]
    os.execv(sys.executable, words)  # noqa: S606 - ourselves


def keep(child: int) -> int:
    """Reap and hand on signals until `child` ends; return its exit code."""
    awaited = [*_HANDED_ON, signal.SIGCHLD]
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while True:
        code = _reaped(child)
        if code is not None:
            return code
        came = signal.sigwaitinfo(awaited)
        # A terminal tells the whole group of Ctrl-C, and the child is in it.
        if came.si_signo != signal.SIGCHLD and came.si_code <= _BY_A_PROCESS:
            os.kill(child, came.si_signo)


def _reaped(child: int) -> int | None:
    """Wait for all that have ended; return the child's exit code if it has."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended  # as every shell says it


if __name__ == "__main__":
    sys.exit(keep(int(sys.argv[1])))
