# SPDX-License-Identifier: Apache-2.0
"""Which roles expire when, and signing them anew in time."""

from dataclasses import dataclass
from datetime import datetime

from updaterd.release.keychange.change import authorities, names_of
from updaterd.release.repository.lifetimes import days_of
from updaterd.release.repository.metadata import Repository
from updaterd.release.workspace import Workspace

WARN_DAYS = 60
"""Root and targets need people; say so this many days before they expire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleReport:
    """One role as it stands."""

    name: str
    version: int
    expires: datetime
    days_left: float
    threshold: int
    keys: tuple[str, ...]
    keys_here: int
    warning: str = ""


def report(
    workspace: Workspace, repository: Repository, now: datetime
) -> list[RoleReport]:
    """Return every role: version, expiry, keys and how many of them are here."""
    reports = []
    for name, (keyids, threshold) in authorities(repository).items():
        signed = repository.roles[name].signed
        days_left = (signed.expires - now).total_seconds() / 86400
        keys_here = sum(workspace.keyring.is_here(keyid) for keyid in keyids)
        warning = ""
        if days_left <= 0:
            warning = "expired: machines accept nothing new"
        elif days_left < min(WARN_DAYS, days_of(name) / 3):
            warning = "expires soon"
        reports.append(
            RoleReport(
                name=name,
                version=signed.version,
                expires=signed.expires,
                days_left=days_left,
                threshold=threshold,
                keys=tuple(names_of(workspace.keyring, keyids)),
                keys_here=keys_here,
                warning=warning,
            )
        )
    return reports


def refresh(
    workspace: Workspace, repository: Repository, now: datetime
) -> tuple[list[str], list[str]]:
    """Sign the timestamp anew, and every other role that is half through its time.

    Root and targets wait until `WARN_DAYS` before their end, since that takes
    several people.

    Returns:
        The roles signed, and what should have been but could not.

    Raises:
        MissingKeysError: not even the timestamp can be signed here.

    Power cut: the old timestamp or the new.
    """
    signed, missing = ["timestamp"], []
    repository.touch("timestamp")
    for role in report(workspace, repository, now):
        slow = role.name in {"root", "targets"}
        early = WARN_DAYS if slow else days_of(role.name) / 2
        if role.name == "timestamp" or role.days_left > early:
            continue
        if role.keys_here < role.threshold:
            how = (
                f"updaterd release keys renew {role.name}" if slow else "bring its key"
            )
            missing.append(f"{role.name} ends in {role.days_left:.0f} days: {how}")
            continue
        repository.touch(role.name)
        signed.append(role.name)
    repository.commit()
    return signed, missing
