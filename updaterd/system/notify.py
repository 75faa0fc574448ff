# SPDX-License-Identifier: Apache-2.0
"""Tell systemd how the daemon is doing: sd_notify(3), over one datagram socket.

Not the library `sdnotify`: it swallows every error, knows neither RELOADING's
MONOTONIC_USEC (systemd >= 253 refuses a reload without it) nor WATCHDOG_USEC, and
saves fewer lines than it costs to vet.
"""

import os
import socket
import time
from collections.abc import Mapping

from updaterd.core.text import printable


class Notifier:
    """The daemon's end of the notify socket; every call is silent without one."""

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        """Keep what systemd asked for.

        Args:
            address: NOTIFY_SOCKET; a leading `@` is the abstract namespace.
            watchdog_s: systemd kills the daemon after this silence, in seconds.
        """
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address[:1] in {"/", "@"}:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            )
            self._socket.setblocking(False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """Return a notifier for what systemd put into the environment.

        WATCHDOG_PID names the process that is watched: a child that inherited the
        variables is not (sd_watchdog_enabled(3)).
        """
        watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environ.get("WATCHDOG_USEC", "")
        enabled = watched and microseconds.isdecimal() and int(microseconds) > 0
        return cls(
            environ.get("NOTIFY_SOCKET", ""),
            watchdog_s=int(microseconds) / 1e6 if enabled else None,
        )

    @property
    def connected(self) -> bool:
        """Whether somebody listens."""
        return self._socket is not None

    def ready(self, status: str = "") -> bool:
        """Say that start-up, or a reload, is complete."""
        return self._send("READY=1", *_status(status))

    def reloading(self) -> bool:
        """Say that the configuration is being read again; `ready` ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str = "") -> bool:
        """Say that the daemon is on its way out."""
        return self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(*_status(text or "-"))

    def watchdog(self) -> bool:
        """Say that the loop has made progress. Call it from the work, not a timer."""
        return self._send("WATCHDOG=1")

    def extend_start(self, seconds: float) -> bool:
        """Ask for more time to start, `seconds` from now."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def close(self) -> None:
        """Close the socket; later calls are silent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> bool:
        """Return whether systemd has the message; a refusal never stops the daemon."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    # one line, no control characters: a newline would start another assignment
    return (f"STATUS={printable(text, longest=400)}",) if text else ()
