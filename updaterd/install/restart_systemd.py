# SPDX-License-Identifier: Apache-2.0
"""Restart a product's units and see whether they stay up, through systemctl.

A system service asks the system manager, also when it is not root: polkit lets it
restart the configured units. In a person's session (XDG_RUNTIME_DIR is set) their own.
"""

import os
import re
import time
from collections.abc import Sequence

from updaterd.core.dataclass import dataclass
from updaterd.errors import TransientError, UpdaterError
from updaterd.install.process import Ran, run

_BOOTED = "/run/systemd/system"  # sd_booted(3)
_RESTART_TIMEOUT_S = 120.0
_ASK_TIMEOUT_S = 15.0
_POLL_S = 0.5
_CANNOT_RUN = frozenset({126, 127})
_NOT_LOADED = frozenset({"not-found", "masked", "bad-setting", "error"})
_STATES = frozenset([
    "initializing",
    "starting",
    "running",
    "degraded",
    "maintenance",
    "offline",
])
_CANCELED = re.compile(r"(?i)\bjob for \S+ cancell?ed")
_NO_RIGHT = ("authentication required", "access denied", "permission denied")


class RestartError(UpdaterError):
    """A unit was started and did not come up."""

    code = "restart_failed"


class RefusedError(TransientError):
    """systemd refused the call: nothing of the release was tried."""

    code = "restart_refused"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The service manager, by its command."""

    systemctl: tuple[str, ...] = ("systemctl",)

    def check(self, units: Sequence[str]) -> None:
        """Check that systemd has `units`, before anything moves for them.

        Raises:
            RefusedError: there is no such unit, it is masked, or cannot be read.
        """
        for unit in units:
            state = self.properties(unit, "LoadState").get("LoadState", "")
            if state in _NOT_LOADED:
                raise RefusedError(
                    f"{unit} cannot be restarted: systemd says {state}",
                    means="nothing was moved; the release is not to blame",
                    do=f"install {unit}, then `systemctl daemon-reload`; or correct "
                    "`units` in the configuration",
                )

    def check_right(self, unit: str) -> None:
        """Ask systemd whether it would restart `unit` for us; it does not.

        `isolate` is a mode of starting alone: systemd first asks polkit, as for every
        restart, and then says that it makes no sense. Nothing else asks the question
        itself and leaves the unit alone (pkcheck takes a unit's name from root only).

        Raises:
            RefusedError: it would not, or cannot be asked.
        """
        words = self._argv("--job-mode=isolate", "restart", "--", unit)
        ran = run(words, timeout_s=_ASK_TIMEOUT_S)
        if ran.code == 0 or "only valid for start" in ran.tail.lower():
            return
        if self._is_unauthorized(ran):
            raise RefusedError(
                f"{unit} may not be restarted by this user: {ran}",
                means="systemd refused the call; the release is not to blame",
                do="run `updaterd config grant --write` as root",
            )
        raise RefusedError(
            f"{unit} cannot be restarted: {ran}",
            means="nothing was moved; the release is not to blame",
            do="look at why systemd does not answer, or leave `units` out",
        )

    def restart(self, units: Sequence[str]) -> None:
        """Restart `units` and wait until systemd says they are up.

        How often they fell until now is forgotten: a release that crashed again and
        again must not use up the starts (StartLimitBurst=, systemd.unit(5)) of the one
        that replaces it, or of the one that comes back.

        Raises:
            RestartError: it says they are not.
            RefusedError: it would not even try.
        """
        if units:
            # Without the right to, or before a unit was ever loaded, it does no harm.
            run(self._argv("reset-failed", "--", *units), timeout_s=_ASK_TIMEOUT_S)
        self._do("restart", units)

    def stop(self, units: Sequence[str]) -> None:
        """Stop `units`.

        Raises:
            RestartError: the units did not stop.
            RefusedError: systemd would not even try.
        """
        if self.systemctl == ("systemctl",) and not os.path.isdir(_BOOTED):
            return  # no unit runs where systemd does not: a chroot, an image
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
            remaining_s = ends - time.monotonic()
            if remaining_s <= 0:
                return ""
            time.sleep(min(_POLL_S, remaining_s))

    def is_stopping(self) -> bool | None:
        """Tell whether the manager stops everything; None: it does not answer."""
        ran = run(self._argv("is-system-running"), timeout_s=_ASK_TIMEOUT_S)
        lines = {line.strip() for line in ran.tail.splitlines()}
        if "stopping" in lines:
            return True
        return False if ran.code in _CANNOT_RUN or lines & _STATES else None

    def _argv(self, *words: str) -> list[str]:
        session = os.geteuid() != 0 and "XDG_RUNTIME_DIR" in os.environ
        user = ["--user"] if session else []
        return [*self.systemctl, *user, "--no-ask-password", *words]

    def _do(self, verb: str, units: Sequence[str]) -> None:
        if not units:
            return
        ran = run(self._argv(verb, "--", *units), timeout_s=_RESTART_TIMEOUT_S)
        if ran.code == 0:
            return
        failure = f"systemctl {verb} {' '.join(units)}: {ran}"
        if not _is_refused(ran):
            raise RestartError(failure, do=f"see `systemctl status {units[0]}`")
        raise RefusedError(
            failure,
            means="systemd refused the call; the release is not to blame",
            do="run `updaterd config grant --write` as root"
            if self._is_unauthorized(ran)
            else f"see `systemctl status {units[0]}`, and `units` in the configuration",
        )

    def states(self, units: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Return of each unit its ActiveState and how often systemd restarted it."""
        return {unit: self._show(unit) for unit in units}

    @staticmethod
    def _is_unauthorized(ran: Ran) -> bool:
        return any(words in ran.tail.lower() for words in _NO_RIGHT)

    def _show(self, unit: str) -> tuple[str, str]:
        """Return a unit's ActiveState and how often systemd restarted it."""
        values = self.properties(unit, "ActiveState,NRestarts")
        return values.get("ActiveState", ""), values.get("NRestarts", "")

    def properties(self, unit: str, names: str) -> dict[str, str]:
        """Return properties of a unit, by name; none where systemd does not answer."""
        ran = run(
            self._argv("show", f"--property={names}", "--", unit),
            timeout_s=_ASK_TIMEOUT_S,
        )
        return dict(line.partition("=")[::2] for line in ran.tail.splitlines())


def _is_refused(ran: Ran) -> bool:
    """Tell a call that systemd refused from a job that failed.

    "Failed to restart acme.service: Unit acme.service not found." is the first, "Job
    for acme.service failed because ..." the second; no systemctl is the first too, and
    so is a job that another took the place of: "Job for acme.service canceled."
    """
    lines = ran.tail.splitlines()
    if any(_CANCELED.search(line) for line in lines):
        return True
    if any(" job for " in f" {line.lower()}" for line in lines):
        return False
    return ran.code in _CANNOT_RUN or any(
        line.startswith("Failed to ") for line in lines
    )
