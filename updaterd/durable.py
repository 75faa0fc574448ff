# SPDX-License-Identifier: Apache-2.0
"""The only module that renames, links or syncs; ruff bans those calls elsewhere."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_RENAME_EXCHANGE = 2  # renameat2(2)
_AT_FDCWD = -100


class _Libc:
    """What `os` does not have. ctypes is half a MiB, and no daemon needs it."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        import ctypes  # noqa: PLC0415 # see above

        function: Callable[..., int] = ctypes.CDLL(None, use_errno=True)[name]
        return function


_libc = _Libc()


def _check(result: int, path: Path) -> None:
    if result != 0:
        import ctypes  # noqa: PLC0415 # see _Libc

        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def sync_dir(path: Path) -> None:
    """Make the directory's renames survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def point(link: Path, target: Path) -> None:
    """Point `link` at `target`: a reader sees the old or the new, never neither.

    Power cut: at worst `.<link>.new` is left over; the next call clears it.
    """
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    os.symlink(target, fresh)
    sync_dir(link.parent)  # a symlink cannot be fsynced; its directory can
    os.replace(fresh, link)
    sync_dir(link.parent)


def write_file(
    path: Path,
    data: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace `path` with `data`: a reader sees the old bytes or the new, whole.

    Args:
        path: what is replaced.
        data: all of it.
        mode: its permissions.
        owner: user and group it is given to; only root may. None: stays ours.

    Raises:
        OSError: the disk refused; `path` is as it was.

    Power cut: old or new bytes; at worst a `.<name>.<random>.new` is left over.
    """
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def append(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Add `data` to the end of a file, which is made where it is missing.

    Raises:
        OSError: the disk refused; some of `data` may be there.

    Power cut: what was there, and a beginning of `data`; once it returned, all of it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    is_new = not path.exists()
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_dir(path.parent)


def publish_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` as `write_file` does, without syncing.

    For files that are made anew after a power cut anyway (`/run`).

    Raises:
        OSError: the disk refused; `path` is as it was.
    """
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def share_file(source: Path, path: Path) -> None:
    """Let a file that nobody writes to any more stand at `path`, too.

    Raises:
        OSError: another file system, or the disk refused; `path` is as it was.

    Power cut: at `path` stands what stood there, or the file, whole; at worst a
    `.<name>.<random>.new` is left over.
    """
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    os.link(source, fresh, follow_symlinks=False)
    try:
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)  # two names of one file: replace does nothing
    sync_dir(path.parent)


def sync_fs(path: Path) -> None:
    """Make everything written to the file system of `path` survive a power cut.

    One call for a whole tree: measured against fsync of each file in
    docs/reliability.md. syncfs(2) reports write errors since Linux 5.8.

    Raises:
        OSError: the disk refused, now or while writing back.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc.syncfs(fd), path)
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    """Move `source` to the free name `target` on the same file system, durably.

    Raises:
        OSError: the disk refused, or `target` is taken.

    Power cut: it stands at the old name or at the new one, whole.
    """
    os.rename(source, target)
    sync_dir(target.parent)
    if source.parent != target.parent:
        sync_dir(source.parent)


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step: no reader finds either of them missing.

    Raises:
        OSError: the disk refused; EINVAL where the file system cannot (NFS).

    Power cut: both stand as before, or both as after.
    """
    names = os.fsencode(first), os.fsencode(second)
    _check(
        _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE),
        first,
    )
    sync_dir(first.parent)
    if first.parent != second.parent:
        sync_dir(second.parent)


def remove(path: Path) -> None:
    """Remove a file or link, durably; it may be absent.

    Power cut: it is there or it is not.
    """
    path.unlink(missing_ok=True)
    sync_dir(path.parent)


def make_dir(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory and its parents where they are missing, durably.

    Args:
        path: one that is there is left as it is.
        mode: of the directory, whatever the umask; parents that are made get 0755.

    Raises:
        FileExistsError: something else stands there.
        OSError: the disk refused.

    Power cut: some of the directories are there, empty.
    """
    if path.is_dir():
        return
    make_dir(path.parent)
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return  # by another process, meanwhile
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(fd, mode)  # the umask took bits away
    finally:
        os.close(fd)
    sync_dir(path.parent)


def settle(fresh: Path, path: Path, *, mode: int = 0o644) -> None:
    """Give a finished file its final name: a reader sees it whole or not at all.

    Args:
        fresh: on the same file system; written and closed, not yet synced.
        path: its directory is made when absent, for everybody to enter.
        mode: of the final file.

    Raises:
        OSError: the disk refused; `path` is as it was.

    Power cut: `fresh` is there under its old name, or whole under its new one.
    """
    make_dir(path.parent)
    fd = os.open(fresh, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(fresh, path)
    sync_dir(path.parent)


def symlink_at(target: str, name: str, directory: int) -> None:
    """Make a symbolic link in an open directory of a tree that is being staged.

    Raises:
        OSError: it exists, or the disk refused.

    Power cut: the staging directory is thrown away as a whole.
    """
    os.symlink(target, name, dir_fd=directory)


def link_at(source: tuple[str, int], name: str, directory: int) -> None:
    """Hard-link a file (name, open directory) into a tree that is being staged.

    Raises:
        OSError: it exists, another file system, or the disk refused.

    Power cut: the staging directory is thrown away as a whole.
    """
    os.link(
        source[0],
        name,
        src_dir_fd=source[1],
        dst_dir_fd=directory,
        follow_symlinks=False,
    )


def rename_at(source: tuple[str, int], name: str, directory: int) -> None:
    """Move a file or link (name, open directory) within what is being staged.

    Raises:
        OSError: another file system, or the disk refused.

    Power cut: the staging directory is thrown away as a whole, or hashed again.
    """
    os.replace(source[0], name, src_dir_fd=source[1], dst_dir_fd=directory)
