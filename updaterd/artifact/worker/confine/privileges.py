# SPDX-License-Identifier: Apache-2.0
"""Capabilities, namespaces and the memory of a process that is going to be confined.

Sources: user_namespaces(7), capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import struct

from updaterd.artifact.worker.confine import kernel

_NEW_UTS, _NEW_IPC = 0x04000000, 0x08000000
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_APART = _NEW_NETWORK | _NEW_IPC | _NEW_UTS
_CAPABILITIES = 64  # more than there are: the first unknown one ends the loop
_VERSION_3 = 0x20080522


def separate() -> bool:
    """Move to a network, an IPC and a user namespace of its own, and tell whether.

    No ids are mapped, and none are needed: files go on belonging to the same user, by
    whatever number this process knows it. Refused where the owner or the unit
    (`RestrictNamespaces=`) does not want it.
    """
    return any(
        kernel.libc.unshare(flags) == 0 for flags in (_NEW_USER | _APART, _APART)
    )


def drop() -> None:
    """Give every capability away, and let nobody of this user look into its memory."""
    libc = kernel.libc
    for number in range(_CAPABILITIES):
        if libc.prctl(kernel.CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) != 0:
            break  # not there; or not ours to drop, and then there is none to gain
    libc.prctl(kernel.CAP_AMBIENT, kernel.CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    libc.capset(struct.pack("@Ii", _VERSION_3, 0), bytes(24))
    libc.prctl(kernel.SET_DUMPABLE, 0, 0, 0, 0)
