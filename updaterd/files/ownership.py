# SPDX-License-Identifier: Apache-2.0
"""Who else could change what a path leads to: files that this machine obeys.

A configuration, a hook, a health command, the first root: whoever may write one of
them, or a directory on the way to it, decides what runs here. Only root and the user
whom updaterd belongs to may. The path is walked once, name by name, by descriptors,
through links as the kernel follows them.

A group may write only where it is nobody's but the owner's: his private group, whose
name is his and which nobody else is in. A directory with the sticky bit keeps what
stands in it from others, but not others from adding to it: it may be on the way, it
may not be the last one.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_HOPS = 40  # links that Linux follows within one path
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL = "system.posix_acl_access"


def owners(*folders: str | os.PathLike[str]) -> frozenset[int]:
    """Return the users who may write what this machine obeys.

    Root, by whatever number it is known here (that of `/`: in a user namespace root
    may have none), this process's own user, and whom `folders` belong to: the state
    directory, so that root sees what the daemon's user sees.
    """
    uids = {0, os.geteuid()}
    for folder in ("/", *folders):
        try:
            uids.add(os.stat(folder).st_uid)
        except OSError:
            continue
    return frozenset(uids)


def fault(path: str | os.PathLike[str], trusted: frozenset[int]) -> str:
    """Return who else could change what `path` leads to, in words; or nothing.

    What is not there is no fault, unless others could put it there; nor is what this
    process may not look at, for it cannot obey that.

    Args:
        path: of a file or a directory; a relative one starts at `/`.
        trusted: users who may write; see `owners`.
    """
    walk = _Walk(trusted)
    try:
        return walk.go(os.path.join("/", os.fspath(path)))
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return ""
    finally:
        walk.close()


def first_fault(
    paths: Iterable[str | os.PathLike[str]], trusted: frozenset[int]
) -> str:
    """Return the first fault of several paths, or nothing."""
    return next((text for path in paths if (text := fault(path, trusted))), "")


class _Walk:
    """One way through the file system, directory by directory, from `/`."""

    def __init__(self, trusted: frozenset[int]) -> None:
        self._trusted = trusted
        self._fds: list[int] = []
        self._names: list[str] = []
        self._shared: list[str] = []  # why others may add to each directory
        self._ahead: list[str] = []  # names still to go, the next one last
        self._hops = 0

    def close(self) -> None:
        """Let go of every directory."""
        while self._fds:
            os.close(self._fds.pop())

    def go(self, path: str) -> str:
        """Walk to the end of an absolute path; return the first fault, or nothing.

        Raises:
            OSError: something on the way is not there, or closed to us.
        """
        if fault_text := self._enter("/"):
            return fault_text
        self._ahead = list(reversed(path.split("/")))
        while self._ahead:
            name = self._ahead.pop()
            if name == "..":
                self._leave()
            elif name not in ("", "."):
                fault_text, ended = self._step(name)
                if fault_text or ended:
                    return fault_text
        return self._shared[-1]

    def _step(self, name: str) -> tuple[str, bool]:
        """Take one step; return the fault that it meets, and whether it was the last.

        Raises:
            OSError: it is closed to us, or went away.
        """
        try:
            status = os.lstat(name, dir_fd=self._fds[-1])
        except FileNotFoundError:
            return self._shared[-1], True
        if self._shared[-1] and status.st_uid not in self._trusted:
            return self._belongs(name, status), True
        if stat.S_ISLNK(status.st_mode):
            self._hops += 1
            target = os.readlink(name, dir_fd=self._fds[-1])
            if target.startswith("/"):
                self._restart()
            self._ahead += reversed(target.split("/"))
            return "", self._hops > _HOPS  # the kernel follows it no further
        if stat.S_ISDIR(status.st_mode):
            return self._enter(name), False
        return self._file(name), True

    def _enter(self, name: str) -> str:
        where = self._fds[-1] if self._fds else None
        fd = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=where)
        self._fds.append(fd)
        self._names.append("" if name == "/" else name)
        status = os.fstat(fd)
        if status.st_uid not in self._trusted:
            return self._belongs("", status)
        shared = self._writable("", fd, status)
        self._shared.append(shared)
        return "" if status.st_mode & stat.S_ISVTX else shared

    def _leave(self) -> None:
        if len(self._fds) > 1:
            os.close(self._fds.pop())
            self._names.pop()
            self._shared.pop()

    def _restart(self) -> None:
        while len(self._fds) > 1:
            self._leave()

    def _file(self, name: str) -> str:
        """Judge a file at the end of the way, and the directory that it is in."""
        fd = os.open(name, _LOOK, dir_fd=self._fds[-1])
        try:
            status = os.fstat(fd)
            if status.st_uid not in self._trusted:
                return self._belongs(name, status)
            return self._writable(name, fd, status) or self._shared[-1]
        finally:
            os.close(fd)

    def _belongs(self, name: str, status: os.stat_result) -> str:
        return f"{self._path(name)} belongs to {_user(status.st_uid)}"

    def _writable(self, name: str, fd: int, status: os.stat_result) -> str:
        """Return who else may write there, by its mode; or nothing."""
        path = self._path(name)
        if status.st_mode & stat.S_IWOTH:
            return f"every user may write {path}"
        if status.st_mode & stat.S_IWGRP:
            if _has_list(fd):
                return f"the access list of {path} lets others write"
            if not self._is_private(status.st_gid):
                return f"group {_group(status.st_gid)} may write {path}"
        return ""

    def _path(self, name: str) -> str:
        return "/".join([*self._names, *([name] if name else [])]) or "/"

    def _is_private(self, gid: int) -> bool:
        """Tell whether nobody but a trusted user is in the group."""
        import grp  # noqa: PLC0415 - only where a group may write
        import pwd  # noqa: PLC0415 - the same

        try:
            group = grp.getgrgid(gid)
            users = [pwd.getpwnam(name) for name in {group.gr_name, *group.gr_mem}]
        except KeyError:
            return False
        return all(user.pw_uid in self._trusted for user in users) and any(
            user.pw_gid == gid and user.pw_name == group.gr_name for user in users
        )


def _has_list(fd: int) -> bool:
    """Tell whether an access list (POSIX ACL) says more than the mode does."""
    try:  # what O_PATH opened has no attributes but by its name
        os.getxattr(f"/proc/self/fd/{fd}", _ACL)
    except OSError:
        return False
    return True


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    import grp  # noqa: PLC0415 - only for a message

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
