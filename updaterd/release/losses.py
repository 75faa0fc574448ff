# SPDX-License-Identifier: Apache-2.0
"""What a directory has that no release carries: named, and let go only if asked."""

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from updaterd.errors import RejectedError

KINDS = {
    "setuid": "programs that run as their owner (setuid)",
    "setgid": "programs or folders that hand on their group (setgid)",
    "sticky": "the sticky bit",
    "capabilities": "file capabilities",
    "acl": "access lists (POSIX ACL)",
    "xattr": "extended attributes (user.*, trusted.*)",
}
_SHOWN = 3


@dataclass(slots=True)
class Losses:
    """What was met on the way through a tree.

    Attributes:
        carried: kinds of rights that the publisher wants carried (`special.KINDS`).
        paths: by kind, of what only `--drop` lets go.
        writable: of how many entries group or others lose the right to write.
        linked: of how many files another name is in the tree, too: they become files
            of their own.
        owners: of how many entries the owner is not the one who publishes.
    """

    carried: frozenset[str] = frozenset()
    paths: dict[str, list[str]] = field(default_factory=dict)
    writable: int = 0
    linked: int = 0
    owners: int = 0
    _inodes: set[tuple[int, int]] = field(default_factory=set)

    def look(self, real: str, path: str, status: os.stat_result) -> None:
        """Take note of one file or directory."""
        mode = status.st_mode
        for kind, bit in (
            ("setuid", stat.S_ISUID),
            ("setgid", stat.S_ISGID),
            ("sticky", stat.S_ISVTX),
        ):
            if mode & bit and kind not in self.carried:
                self._lose(kind, path)
        if "writable" not in self.carried:
            self.writable += bool(mode & (stat.S_IWGRP | stat.S_IWOTH))
        self.owners += status.st_uid != os.geteuid()
        if stat.S_ISREG(mode) and status.st_nlink > 1:
            itself = (status.st_dev, status.st_ino)
            self.linked += itself in self._inodes
            self._inodes.add(itself)
        for name in _attributes(real):
            if name == "security.capability":
                self._lose("capabilities", path)
            elif name.startswith("system.posix_acl_"):
                self._lose("acl", path)
            elif name.startswith(("user.", "trusted.")):
                self._lose("xattr", path)

    def _lose(self, kind: str, path: str) -> None:
        self.paths.setdefault(kind, []).append(path)

    def notes(self) -> tuple[str, ...]:
        """Return what the publisher should know of it."""
        lines = [f"not carried: {line}" for line in _lines(self.paths)]
        if self.writable:
            lines.append(
                f"{self.writable} files or folders that group or others may write here "
                "arrive without that right"
            )
        if self.linked:
            lines.append(f"{self.linked} hard links arrive as files of their own")
        if self.owners:
            lines.append(
                f"{self.owners} files or folders of other users arrive as the machine's"
            )
        return tuple(lines)


def _attributes(real: str) -> list[str]:
    try:
        return os.listxattr(real, follow_symlinks=False)
    except OSError:
        return []  # a file system without them


def _lines(by_kind: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for kind, paths in by_kind.items():
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        shown = ", ".join(f"{path!r:.80}" for path in paths[:_SHOWN])
        lines.append(f"{KINDS[kind]}: {shown}{more}")
    return lines


def require_dropped(losses: Losses, drop: Collection[str]) -> None:
    """Check that the publisher knows of everything that does not arrive.

    Raises:
        RejectedError: of something they do not.
    """
    lost = {kind: paths for kind, paths in losses.paths.items() if kind not in drop}
    if lost:
        raise RejectedError(
            "the tree has what no release carries: " + "; ".join(_lines(lost)),
            means="machines would get it without, and nobody would notice",
            do="take it out of the tree, or let it go: --drop "
            + ",".join(sorted(lost)),
            code="not_carried",
        )
