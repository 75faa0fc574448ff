"""Is the activated release well? A command, units that stay up, an address.

All that is configured must hold. The first thing that does not is the verdict.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from updaterd.core.settings import Health
from updaterd.core.text import printable
from updaterd.errors import UpdaterError
from updaterd.install.process import run

_POLL_S = 0.5
_BODY_LIMIT = 64 * 1024


class Manager(Protocol):
    """What is needed of a service manager; `restart_systemd.Systemd` is one."""

    def restart(self, units: Sequence[str]) -> None:
        """Restart the units; raise UpdaterError when they do not come up."""

    def stop(self, units: Sequence[str]) -> None:
        """Stop the units; raise UpdaterError when that fails."""

    def fault(self, units: Sequence[str], *, active_s: float) -> str:
        """Return what is wrong with the units within `active_s`, or nothing."""


class Getter(Protocol):
    """What is needed to ask an address; `net.Fetcher` is one."""

    def get(self, url: str, *, limit: int, deadline_s: float) -> bytes:
        """Return the body of a 2xx answer; raise UpdaterError for anything else."""


def fault(
    health: Health,
    units: Sequence[str],
    *,
    manager: Manager,
    getter: Getter,
    env: Mapping[str, str],
) -> str:
    """Return what is wrong with the running release, or nothing.

    Args:
        health: what must hold.
        units: the product's units; watched when there are any.
        manager: the service manager.
        getter: asks the health address.
        env: added to the command's environment.
    """
    if units and (found := manager.fault(units, active_s=health.active_s)):
        return found
    if health.command:
        ran = run(health.command, timeout_s=health.timeout_s, env=env)
        if ran.code != 0:
            return printable(f"health command: {ran}", longest=300)
    return _ask(health, getter) if health.url else ""


def _ask(health: Health, getter: Getter) -> str:
    """Ask the address until it answers 2xx or the time is up."""
    ends = time.monotonic() + health.timeout_s
    said = "no time to ask"
    while (left := ends - time.monotonic()) > 0:
        try:
            getter.get(health.url or "", limit=_BODY_LIMIT, deadline_s=left)
        except UpdaterError as error:
            said = error.what
        else:
            return ""
        time.sleep(min(_POLL_S, max(0.0, ends - time.monotonic())))
    return printable(f"health address {health.url}: {said}", longest=300)
