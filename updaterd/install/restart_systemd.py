"""Restart a product's units and see whether they stay up, through systemctl.

A system service asks the system manager, also when it is not root: polkit lets it
restart the configured units. In a person's session (XDG_RUNTIME_DIR is set) their own.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from updaterd.errors import UpdaterError
from updaterd.install.process import run

_RESTART_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 15.0
_POLL_S = 0.5


class RestartError(UpdaterError):
    """systemd would not restart a unit."""

    code = "restart_failed"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The service manager, by its command."""

    systemctl: tuple[str, ...] = ("systemctl",)

    def restart(self, units: Sequence[str]) -> None:
        """Restart `units` and wait until systemd says they are up.

        How often they fell until now is forgotten: a release that crashed again and
        again must not use up the starts (StartLimitBurst=, systemd.unit(5)) of the one
        that replaces it, or of the one that comes back.

        Raises:
            RestartError: it says they are not.
        """
        if units:
            # Without the right to, or before a unit was ever loaded, it does no harm.
            run(self._argv("reset-failed", "--", *units), timeout_s=_ASK_TIMEOUT_S)
        self._do("restart", units)

    def stop(self, units: Sequence[str]) -> None:
        """Stop `units`.

        Raises:
            RestartError: systemd would not.
        """
        self._do("stop", units)

    def fault(self, units: Sequence[str], *, active_s: float) -> str:
        """Watch `units` for `active_s` seconds; return what went wrong, or nothing.

        A unit that crashes and is restarted by systemd counts as fallen.
        """
        ends = time.monotonic() + active_s
        starts = {unit: self._show(unit)[1] for unit in units}
        while True:
            for unit in units:
                state, restarts = self._show(unit)
                if state != "active":
                    return f"{unit} is {state or 'unknown'}"
                if restarts != starts[unit]:
                    return f"{unit} fell and was restarted by systemd"
            left = ends - time.monotonic()
            if left <= 0:
                return ""
            time.sleep(min(_POLL_S, left))

    def _argv(self, *words: str) -> list[str]:
        session = os.geteuid() != 0 and "XDG_RUNTIME_DIR" in os.environ
        user = ["--user"] if session else []
        return [*self.systemctl, *user, "--no-ask-password", *words]

    def _do(self, verb: str, units: Sequence[str]) -> None:
        if not units:
            return
        ran = run(self._argv(verb, "--", *units), timeout_s=_RESTART_TIMEOUT_S)
        if ran.code != 0:
            raise RestartError(
                f"systemctl {verb} {' '.join(units)}: {ran}",
                do=f"see `systemctl status {units[0]}`",
            )

    def _show(self, unit: str) -> tuple[str, str]:
        """Return a unit's ActiveState and how often systemd restarted it."""
        ran = run(
            self._argv("show", "--property=ActiveState,NRestarts", "--", unit),
            timeout_s=_ASK_TIMEOUT_S,
        )
        found = dict(line.partition("=")[::2] for line in ran.tail.splitlines())
        return found.get("ActiveState", ""), found.get("NRestarts", "")
