# SPDX-License-Identifier: Apache-2.0
"""Is the activated release well? Its units stay up, and its checks find no fault.

All that is configured must hold: each kind of check (`install/checks/`) is asked, time
and again, until all of it held or the time is up. A service that needs its time to
listen has it; one failed answer is no verdict, nor is one good answer after which it
fell.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from updaterd.core.settings import Health
from updaterd.install import checks
from updaterd.install.checks.kind import Getter, Means
from updaterd.install.commands import require_safe


class Manager(Protocol):
    """What is needed of a service manager; `restart_systemd.Systemd` is one."""

    def check(self, units: Sequence[str]) -> None:
        """Raise RefusedError when the units cannot be restarted at all."""

    def restart(self, units: Sequence[str]) -> None:
        """Restart the units; raise UpdaterError when they do not come up."""

    def stop(self, units: Sequence[str]) -> None:
        """Stop the units; raise UpdaterError when that fails."""

    def fault(self, units: Sequence[str], *, active_s: float) -> str:
        """Return what is wrong with the units within `active_s`, or nothing."""

    def states(self, units: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Return of each unit its ActiveState and how often systemd restarted it."""

    def properties(self, unit: str, names: str) -> Mapping[str, str]:
        """Return properties of a unit, by name; none where it does not answer."""

    def is_stopping(self) -> bool | None:
        """Tell whether it stops everything; None: it does not answer."""


def fault(  # noqa: PLR0913 - what is asked, and whom
    health: Health,
    units: Sequence[str],
    *,
    trusted: frozenset[int],
    manager: Manager,
    getter: Getter,
    env: Mapping[str, str],
) -> str:
    """Return what is wrong with the running release, or nothing.

    Args:
        health: what must hold.
        units: the product's units; watched when there are any.
        manager: the service manager.
        getter: asks addresses.
        env: added to the command's environment.
        trusted: users who may change what the command runs.

    Raises:
        UnsafeCommandError: others could change it: there is no telling.
    """
    for kind, argv in health.commands:
        require_safe(f"health {kind}", argv, trusted)
    if units and (fallen := manager.fault(units, active_s=health.active_s)):
        return fallen
    return _until_well(health, units, manager, Means(getter=getter, env=env))


def _until_well(
    health: Health,
    units: Sequence[str],
    manager: Manager,
    means: Means,
) -> str:
    """Ask each check, and look at the units, until all are well.

    Being well must last `stable_s`; what was said last before the time is up is the
    fault. A unit that systemd has given up does not come back by being asked, and a
    machine that goes down is not waited for.
    """
    if not health.checks and not (units and health.stable_s):
        return ""
    ends = time.monotonic() + health.timeout_s
    unwell, well_since = "no time to ask", None
    before = manager.states(units) if units else {}
    while (left_s := ends - time.monotonic()) > 0:
        unwell = checks.fault(health, means, left_s=left_s)
        states = manager.states(units) if units else {}
        fallen, before = _fallen(before, states), states
        if fallen and any(state == "failed" for state, _ in states.values()):
            return f"{fallen}; {unwell}" if unwell else fallen
        unwell = unwell or fallen
        now = time.monotonic()
        well_since = None if unwell else now if well_since is None else well_since
        if well_since is not None and now - well_since >= health.stable_s:
            return ""
        if unwell and manager.is_stopping():
            return unwell
        time.sleep(min(health.every_s, max(0.0, ends - now)))
    return unwell or f"was not well for {health.stable_s:g} s on end"


def _fallen(
    before: Mapping[str, tuple[str, str]], states: Mapping[str, tuple[str, str]]
) -> str:
    """Return which unit is not up, or was down since the look before."""
    for unit, (state, restarts) in states.items():
        if state != "active":
            return f"{unit} is {state or 'unknown'}"
        if restarts != before[unit][1]:
            return f"{unit} fell and was restarted by systemd"
    return ""
