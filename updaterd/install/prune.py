# SPDX-License-Identifier: Apache-2.0
"""Delete old releases, but none from which something runs.

Three looks, because none sees everything:

- The kernel is asked whether any file of the release is open, mapped or running
  (`leases.py`): any user's process, in any container. Most programs show here.
- /proc tells of the processes that may be looked at (without root: one's own) also
  the working and root directory.
- An interpreted program may hold nothing open of what it will import next; so a
  process whose command line leads through `current`, and that was started before
  `current` last moved, counts as running from every older release.

Whose processes count is `holders.py`'s to say; of those that others hold the newest
stay, MOST_OF_OTHERS of them.

What is left: another user's interpreted program that was started by a relative path,
outlived the update and holds no file open. Units that updaterd restarts do not.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from updaterd import durable
from updaterd.core.dataclass import dataclass
from updaterd.files import volumes
from updaterd.files.volumes import Obstacle
from updaterd.install import beside, layout, leases, stage
from updaterd.install.holders import Holders

_PROC = Path("/proc")
MOST_OF_OTHERS = 2
"""Releases beyond `keep` that stay for users who have no say in the product."""
_HELD = "a process runs from it or has a file of it open"
_UNKNOWN = (
    "whether something runs from it cannot be told: its files are another user's, or "
    "their file system has no leases"
)
_OLDER = "a process that was started before `current` moved may run from it"


@dataclass(frozen=True, slots=True)
class Old:
    """Releases beyond those that are kept: which can go, and why others stay.

    Attributes:
        free: those that can go, or are gone.
        busy: why something may still run from the others.
        stuck: what stands in the way of deleting one, or what is left of one.
    """

    free: tuple[str, ...] = ()
    busy: Mapping[str, str] = field(default_factory=dict)
    stuck: tuple[Obstacle, ...] = ()


def survey(
    root: Path,
    order: tuple[str, ...],
    *,
    keep: int,
    holders: Holders | None = None,
    proc: Path = _PROC,
) -> Old:
    """Return which releases beyond the newest `keep` can go, and why others stay.

    What `current` names is not among them in any case. What `previous` names counts
    as one that is kept, where more than one is: with `keep` 1 it is there to go back
    to while a trial lasts, and this is asked when none does.

    Args:
        root: the install root.
        order: versions on disk, newest first; others on disk count as oldest.
        keep: how many releases to keep.
        holders: whose processes count; None: everybody's.
        proc: where processes are listed.
    """
    disk = stage.look(root)
    ranked = [*order, *sorted(disk.whole - set(order))]
    named = (disk.running, disk.previous if keep > 1 else None)
    staying = {version for version in named if version}
    for version in ranked:
        if len(staying) >= keep:
            break
        if version in disk.whole:
            staying.add(version)
    doomed = disk.whole - staying
    if not doomed:
        return Old()
    used = in_use(root, holders=holders, proc=proc)
    free: list[str] = []
    busy: dict[str, str] = {}
    stuck: list[Obstacle] = []
    others = 0
    for version in sorted(doomed, key=ranked.index):
        tree = stage.releases(root) / version
        try:
            if foreign := volumes.foreign(tree):
                stuck += foreign
                continue
            why, counts = _why_busy(tree, used, holders)
            if why and not counts:
                others += 1
                counts = others <= MOST_OF_OTHERS
                why += f", of a user without a say: at most {MOST_OF_OTHERS} stay so"
            if counts:
                busy[version] = why
            else:
                free.append(version)
        except OSError as error:
            stuck.append(Obstacle(str(tree), error.strerror or str(error)))
    return Old(tuple(sorted(free)), dict(sorted(busy.items())), tuple(stuck))


def prune(
    root: Path,
    order: tuple[str, ...],
    *,
    keep: int,
    holders: Holders | None = None,
    proc: Path = _PROC,
) -> Old:
    """Delete releases beyond the newest `keep`; return which, and what stays.

    One that cannot be deleted keeps no other.

    Args:
        root: the install root.
        order: as in `survey`.
        keep: how many releases to keep.
        holders: whose processes count; None: everybody's.
        proc: where processes are listed.

    Power cut: a release is there, whole, or is not one any more; what is left of it
        in the trash is deleted by the next call. `previous` may be gone before it.
    """
    old = survey(root, order, keep=keep, holders=holders, proc=proc)
    previous = stage.look(root).previous
    free: list[str] = []
    stuck = list(old.stuck)
    for version in old.free:
        try:
            if version == previous:
                durable.remove(root / "previous")
            stage.discard(root, version)  # what is left of it is told below
        except OSError as error:
            tree = stage.releases(root) / version
            stuck.append(Obstacle(str(tree), error.strerror or str(error)))
        else:
            free.append(version)
    stuck += empty_trash(root, holders=holders, proc=proc)
    return Old(tuple(free), old.busy, tuple(stuck))


def _why_busy(tree: Path, used: "Used", holders: Holders | None) -> tuple[str, bool]:
    """Return why a tree must not be deleted now, or nothing; and whether it counts.

    What does not count is the doing of users who have no say in the product.
    """
    if used.everything:
        return _OLDER, True
    key = f"{tree.parent.name}/{tree.name}"
    if key in used.counting:
        return _HELD, True
    # a link (what others installed, elsewhere) is deleted, not what it leads to
    opened = False if tree.is_symlink() else leases.is_open(tree)
    if opened is None and os.geteuid() != 0:
        return _UNKNOWN, True
    if opened:
        return _HELD, holders is None or holders.unseen
    if key in used.others:
        return _HELD, False
    return (_OLDER, False) if used.others_everything else ("", False)


def set_aside(root: Path) -> list[Path]:
    """Return the trees on their way out."""
    return [path for place in layout.places(root) for path in place.glob("trash-*")]


def empty_trash(
    root: Path, *, holders: Holders | None = None, proc: Path = _PROC
) -> tuple[Obstacle, ...]:
    """Delete the trees that were set aside and that nothing runs from.

    And what is left of releases that are deleted where they are.

    Returns:
        What stays, though nothing runs from it.

    Power cut: part of it is deleted; the next call deletes the rest.
    """
    obstacles: list[Obstacle] = []
    for version in sorted(layout.marked(root)):
        try:
            obstacles += beside.delete_in_place(root, version)
        except OSError as error:
            tree = stage.releases(root) / version
            obstacles.append(Obstacle(str(tree), error.strerror or str(error)))
    trash = set_aside(root)
    if not trash:
        return tuple(obstacles)
    used = in_use(root, holders=holders, proc=proc)
    for path in trash:
        if foreign := volumes.foreign(path):
            obstacles += foreign
        elif not _why_busy(path, used, holders)[1]:
            obstacles += stage.delete_tree(path)
    return tuple(obstacles)


@dataclass(frozen=True, slots=True)
class Used:
    """Which trees processes run from, as `FOLDER/NAME`.

    Attributes:
        counting: those of processes that count.
        others: those of processes that do not.
        everything: one that counts may run from any; it cannot be told apart.
        others_everything: the same of one that does not.
    """

    counting: frozenset[str]
    others: frozenset[str]
    everything: bool
    others_everything: bool


def in_use(root: Path, *, holders: Holders | None = None, proc: Path = _PROC) -> Used:
    """Return from which releases, and trees set aside, processes run.

    Args:
        root: the install root.
        holders: whose processes count; None: everybody's.
        proc: where processes are listed.
    """
    base = os.path.realpath(root)
    trees: dict[bool, set[str]] = {True: set(), False: set()}
    older = {True: False, False: False}
    moved_at = _moved_at(root)
    for process in proc.iterdir():
        if not process.name.isdigit() or process.name == str(os.getpid()):
            continue
        counts = holders is None or holders.count(process)
        for path in _paths(process):
            parts = path.removeprefix(base + "/").split("/", 3)
            if parts[:2] == ["releases", stage.PRIVATE]:
                parts = parts[1:]
            inside = path.startswith(base + "/") and len(parts) > 1
            if inside and parts[0] in ("releases", stage.PRIVATE):
                trees[counts].add(f"{parts[0]}/{parts[1]}")
        older[counts] = older[counts] or _older(process, root, moved_at)
    return Used(
        frozenset(trees[True]), frozenset(trees[False]), older[True], older[False]
    )


def runs_from(root: Path, version: str, *, proc: Path = _PROC) -> bool:
    """Tell whether any process runs from a release that `current` names.

    Or has a file of it open, or was started through `current` since that moved. Where
    it cannot be told, it does.

    Args:
        root: the install root.
        version: the release.
        proc: where processes are listed.
    """
    tree = stage.releases(root) / version
    if leases.is_open(tree) is not False:
        return True
    if f"{tree.parent.name}/{tree.name}" in in_use(root, proc=proc).counting:
        return True
    processes = (entry for entry in proc.iterdir() if entry.name.isdigit())
    return any(
        _through_current(process, root) and process.name != str(os.getpid())
        for process in processes
    )


def _through_current(process: Path, root: Path) -> bool:
    """Tell whether a process was started by a path through `current`."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(word.startswith(os.fsencode(root / "current") + b"/") for word in words)


def _paths(process: Path) -> Iterator[str]:
    """Yield the paths that a process holds; what it hides is left out."""
    for name in ("exe", "cwd", "root"):
        with suppress(OSError):
            yield os.readlink(process / name)
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(fd)
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            path = line[line.find("/") :] if "/" in line else ""
            if path:
                yield path


def _moved_at(root: Path) -> float:
    """Return when `current` last moved; a link is made anew each time."""
    try:
        return (root / "current").lstat().st_ctime
    except OSError:
        return 0.0


def _older(process: Path, root: Path, moved_at: float) -> bool:
    """Tell whether a process was started through `current` before it last moved."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        # proc_pid_stat(5), field 22; the name in parentheses may hold anything
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return False
    through = os.fsencode(root / "current") + b"/"
    # Both of the kernel's clocks at once: file times are in one, starts in the other.
    booted_at = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(
        time.CLOCK_BOOTTIME
    )
    return booted_at + started < moved_at and any(
        word.startswith(through) for word in words
    )
