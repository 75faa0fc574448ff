"""The only module that renames, links or syncs; ruff bans those calls elsewhere."""

import os
import secrets
from pathlib import Path


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


def write_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` with `data`: a reader sees the old bytes or the new, whole.

    Raises:
        OSError: the disk refused; `path` is as it was.

    Power cut: old or new bytes; at worst a `.<name>.<random>.new` is left over.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def publish_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` as `write_file` does, without syncing.

    For files that are made anew after a power cut anyway (`/run`).

    Raises:
        OSError: the disk refused; `path` is as it was.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
