# SPDX-License-Identifier: Apache-2.0
"""Landlock: below which folders a process may read, write and make files.

Sources: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from updaterd.artifact.worker.confine import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# syscall numbers, the same on every architecture since Linux 5.13
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK = 1 << 6, 1 << 7, 1 << 8, 1 << 9
_MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_CHANGES = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_CHAR | _MAKE_DIR | _MAKE_REG
) | (_MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM)
_SINCE = ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV))  # Landlock ABI: right
_BELOW = _WRITE_FILE | _MAKE_DIR | _MAKE_REG  # nothing else makes a tree's files
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET_TCP = 0b11  # bind, connect: ABI 4
_SCOPES = 0b11  # abstract sockets, signals: ABI 6


def version() -> int:
    """Return the kernel's Landlock ABI, 0 without Landlock (or with it disabled)."""
    abi: int = kernel.libc.syscall(
        ctypes.c_long(_CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint(_CREATE_RULESET_VERSION),
    )
    return max(abi, 0)


def restrict(
    abi: int, write: Path | str | int, read: Sequence[Path | str | int] | None
) -> None:
    """Let this process make and write below `write` only, and read below `read`.

    Args:
        abi: what `version` returned; not 0.
        write: a path, or a descriptor.
        read: the same; None leaves reading alone.

    Raises:
        OSError: one of them cannot be opened.
    """  # noqa: DOC501  raised through kernel.refusal
    handled = _CHANGES | _EXECUTE
    for since, right in _SINCE:
        if abi >= since:
            handled |= right
    reading = 0 if read is None else _READ_FILE | _READ_DIR
    handled |= reading
    # The kernel takes a shorter struct from older callers; newer ones must not pass
    # fields it does not know.
    attributes = struct.pack("=Q", handled)
    if abi >= 4:
        attributes += struct.pack("=Q", _NET_TCP)
    if abi >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = kernel.libc.syscall(
        ctypes.c_long(_CREATE_RULESET),
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    if ruleset < 0:
        raise kernel.refusal("landlock_create_ruleset")
    try:
        _allow(ruleset, write, (_BELOW | reading) & handled)
        for path in read or ():
            _allow(ruleset, path, reading)
        if (
            kernel.libc.syscall(
                ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)
            )
            != 0
        ):
            raise kernel.refusal("landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path | str | int, rights: int) -> None:
    fd = path
    if not isinstance(fd, int):
        fd = os.open(fd, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.stat(fd).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        if (
            rights
            and kernel.libc.syscall(
                ctypes.c_long(_ADD_RULE),
                ctypes.c_int(ruleset),
                ctypes.c_int(_RULE_PATH_BENEATH),
                rule,
                ctypes.c_uint(0),
            )
            != 0
        ):
            raise kernel.refusal(f"landlock_add_rule {path}")
    finally:
        if fd != path:
            os.close(fd)
