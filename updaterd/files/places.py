# SPDX-License-Identifier: Apache-2.0
"""The folders that updaterd calls its own: made again by whoever needs one.

Of the cache the manual says that it may be deleted, and people delete more. A folder
that is missing is made, closed to others, for the user whom updaterd belongs to: root,
who types a command, must not lock the daemon out. What cannot be made is told with what
would help, which differs for root and for everybody else.
"""

import errno
import os
from pathlib import Path

from updaterd.errors import BrokenError

PRIVATE = 0o700


def make(path: Path, *, mode: int = PRIVATE, like: Path | None = None) -> None:
    """Make a folder of our own, and those that are missing on the way to it.

    Args:
        path: the folder; one that is there is left as it is.
        mode: of what is made, whatever the umask.
        like: root gives what it makes to the owner of this one.

    Raises:
        FileExistsError: something else is in its place.
        OSError: it cannot be made.

    Power cut: some of the folders are there, the next call makes the rest.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        try:
            folder.mkdir(mode=mode)
        except FileExistsError:
            if not folder.is_dir():
                raise
            continue
        _give(folder, mode, _owner(like))


def _give(folder: Path, mode: int, owner: tuple[int, int] | None) -> None:
    """Give what was just made its mode and owner: itself, not what stands there now.

    Root may make it in a folder of a user who can put a link in its place meanwhile.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            return  # another's already
        os.fchmod(fd, mode)
        if owner is not None:
            os.fchown(fd, *owner)
    finally:
        os.close(fd)


def require(path: Path, *, like: Path | None = None, code: str) -> None:
    """Make a folder of our own, or say what a person can do.

    Args:
        path: as for `make`.
        like: as for `make`.
        code: of the error.

    Raises:
        BrokenError: it cannot be made, or not be used.

    Power cut: as `make`.
    """
    try:
        make(path, like=like)
    except OSError as error:
        raise BrokenError(
            f"cannot make {path}: {error.strerror}",
            means="updates wait; what is installed is not affected",
            do=advice(path, error.errno, like=like),
            code=code,
        ) from error


def is_usable(path: Path) -> bool:
    """Tell whether a folder is there and this process may write in it.

    In a unit's own view of the file system one that was deleted outside and made again
    is there, and read-only: the unit must be started anew.
    """
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def advice(path: Path, number: int | None, *, like: Path | None = None) -> str:
    """Return what helps when one of our folders cannot be made or written.

    Args:
        path: the folder.
        number: the error's.
        like: as for `make`.
    """
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free disk space"
    if number == errno.EROFS:
        return (
            "if it was deleted while the daemon ran, `systemctl restart updaterd` "
            f"makes it; else mount the file system of {path} writable"
        )
    if text := refused_root(number):
        return text
    uid, gid = _owner(like) or (os.geteuid(), os.getegid())
    return (
        f"as root: `install -d -m 0700 -o {_user(uid)} -g {_group(gid)} {path}`; "
        "of a service, `systemctl restart` does the same"
    )


def refused_root(number: int | None) -> str:
    """Return what root should look at when even root is refused; "" for others."""
    if os.geteuid() != 0 or number not in (errno.EACCES, errno.EPERM):
        return ""
    return (
        "it ran as root already: look at the mount (`findmnt -T`), attributes "
        "(`lsattr -d`) and security modules (AppArmor, SELinux)"
    )


def _owner(like: Path | None) -> tuple[int, int] | None:
    """Return who should own what root makes; None: who makes it."""
    if like is None or os.geteuid() != 0:
        return None
    try:
        status = like.stat()
    except OSError:
        return None
    return (status.st_uid, status.st_gid) if status.st_uid != 0 else None


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only in trouble; the daemon lives without

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp  # noqa: PLC0415 - as above

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
