# SPDX-License-Identifier: Apache-2.0
"""Replace the running release where two names cannot be exchanged.

In the lower layer of an overlay nothing can be renamed, and NFS knows no exchange. The
whole tree gets another name beside, `current` leads there, the old tree is deleted in
place, its name is given to a twin of the whole one, and `current` leads there again:
at every instant it leads to one complete release, and no file of a tree that runs is
written to.
"""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from updaterd import durable
from updaterd.files import deletion, volumes
from updaterd.files.volumes import Obstacle
from updaterd.install import layout


def switch(staging: Path, root: Path, version: str) -> tuple[Obstacle, ...]:
    """Make the whole, durable tree in `staging` the release that runs.

    Returns:
        What stood in the way of its name: until that is gone, `current` leads to the
        tree under its other name.

    Raises:
        OSError: the disk refused; `current` leads to the old tree or to the new one.

    Power cut: as the steps above; `finish` goes on from any of them.
    """
    fresh = layout.releases(root) / f"{layout.BESIDE}{version}"
    durable.rename(staging, fresh)
    durable.point(root / "current", Path("releases", fresh.name))
    return finish(root)


def finish(root: Path) -> tuple[Obstacle, ...]:
    """Go on with what `switch` began, in this run or in one that died.

    Returns:
        What stands in the way.

    Raises:
        OSError: the disk refused; `current` leads to a whole tree.

    Power cut: safe to repeat.
    """
    obstacles: list[Obstacle] = []
    for fresh in layout.releases(root).glob(f"{layout.BESIDE}*"):
        version = fresh.name.removeprefix(layout.BESIDE)
        if _target(root / "current") == Path("releases", fresh.name):
            in_the_way = delete_in_place(root, version)
            if in_the_way:
                obstacles += in_the_way
                continue
            _make_twin(fresh, root, version)
            durable.point(root / "current", Path("releases", version))
        # something may run from there, in this moment or since a run that died
        trash = layout.private(root) / f"trash-{os.urandom(6).hex()}"
        durable.rename(fresh, trash)
    return tuple(obstacles)


def _make_twin(fresh: Path, root: Path, version: str) -> None:
    """Make a twin of a whole tree the release of this name.

    Raises:
        OSError: the disk refused; there is no twin.

    Power cut: half of it is left in the staging directory, or it is the release.
    """
    twin = Path(tempfile.mkdtemp(prefix="stage-", dir=layout.private(root)))
    try:
        _copy(fresh, twin)
        durable.sync_fs(twin)
        durable.rename(twin, layout.releases(root) / version)
    except BaseException:
        deletion.delete_tree(twin)  # the next run would leave one more beside it
        raise


def delete_in_place(root: Path, version: str) -> tuple[Obstacle, ...]:
    """Delete a release that cannot be moved away; return what stood in the way.

    Raises:
        OSError: the disk refused to mark it; it is whole.

    Power cut: it is whole, or marked and no release any more; the next call goes on.
    """
    tree = layout.releases(root) / version
    foreign = volumes.foreign(tree)
    if foreign:
        return foreign
    if os.path.lexists(tree):
        layout.mark(root, version)
        obstacles = deletion.delete_tree(tree)
        if obstacles:
            return obstacles
        durable.sync_dir(tree.parent)
    layout.unmark(root, version)
    return ()


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:
        return None


def _copy(tree: Path, into: Path) -> None:
    """Make a twin of a whole tree: by hard links where they can be had.

    The first one is deleted afterwards, so nothing stays shared.

    Raises:
        OSError: the disk refused.

    Power cut: half of it is left in the staging directory.
    """
    top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    modes = [(into, os.fstat(top).st_mode & 0o7777)]
    try:
        for item in volumes.walk(top):
            target = into / item.path
            if item.entered:
                target.mkdir(mode=0o700)
                modes.append((target, os.fstat(item.directory).st_mode & 0o7777))
                continue
            place = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _copy_one(item, place)
            finally:
                os.close(place)
        # what is deep first: nothing can be made in a folder that nobody may change
        for target, mode in reversed(modes):
            target.chmod(mode)
    finally:
        os.close(top)


def _copy_one(item: volumes.Found, place: int) -> None:
    with suppress(OSError):
        durable.link_at((item.name, item.directory), item.name, place)
        return
    status = os.lstat(item.name, dir_fd=item.directory)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(item.name, dir_fd=item.directory)
        durable.symlink_at(target, item.name, place)
        _keep_time(status, item.name, place)
        return
    if not stat.S_ISREG(status.st_mode):
        return  # a FIFO, a socket or a device cannot be copied, and no release has one
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = os.open(
        item.name,
        os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
        dir_fd=item.directory,
    )
    with open(source, "rb") as reading:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            return
        with open(os.open(item.name, flags, 0o600, dir_fd=place), "wb") as writing:
            shutil.copyfileobj(reading, writing)
            os.fchmod(writing.fileno(), status.st_mode & 0o7777)
    _keep_time(status, item.name, place)


def _keep_time(status: os.stat_result, name: str, place: int) -> None:
    """Give a copy the time of what it is one of: that is part of a release."""
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=place, follow_symlinks=False)
