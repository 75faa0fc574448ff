# SPDX-License-Identifier: Apache-2.0
"""Is the machine going down? What fails then says nothing about a release.

A stopping system cancels the jobs of units, stops what a health check asks, and ends
the bus that would tell so; a service manager that does not answer is waited for.
"""

import time
from collections.abc import Sized
from typing import Protocol

from updaterd.errors import TransientError

_PATIENCE_S = 20.0  # the daemon has told its worker by then: daemon/supervisor.py
_POLL_S = 0.5


class StoppingError(TransientError):
    """A trial was cut short by what ended the machine, or updaterd itself."""

    code = "system_stopping"


class Manager(Protocol):
    """What is needed of a service manager; `restart_systemd.Systemd` is one."""

    def is_stopping(self) -> bool | None:
        """Tell whether it stops everything; None: it does not answer."""


def is_going_down(manager: Manager, signals: Sized) -> bool:
    """Tell whether everything ends now, so that a failure is nobody's.

    Args:
        manager: the service manager.
        signals: the signals to end that this process got; it may grow meanwhile. Alone
            they say only that updaterd is to stop; with a service manager that does
            not answer any more, that the machine does.
    """
    ends = time.monotonic() + _PATIENCE_S
    while True:
        stopping = manager.is_stopping()
        if stopping is not None:
            return stopping
        if signals:
            return True
        if time.monotonic() > ends:
            return False
        time.sleep(_POLL_S)
