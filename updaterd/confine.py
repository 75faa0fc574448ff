"""Give up, for good, what a parser of hostile bytes does not need.

A process calls `confine` on itself before it opens a bundle. From then on, kernel
permitting, neither it nor its children can

- gain privileges (no_new_privs),
- create, change, remove or link anything but below its staging folder, nor run a
  program (Landlock; from its ABI 4 on no TCP, from 6 on no signals to others),
- open a socket of any kind, trace, mount, load, or run anything (seccomp).

A kernel that lacks one of these still has the others; `Confined.missing` names what
was not to be had, for `status` and the log. Limits on memory, CPU and file size are
the caller's (setrlimit). The packages for this (`landlock`: pre-release, `pyseccomp`:
needs libseccomp and no release since 2021) would be more to vet than these two pages.

Sources: landlock(7), linux/landlock.h; seccomp(2), linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from updaterd.core.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

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
_BELOW = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM
) | (_REFER | _TRUNCATE)
# a link must not gain a right by its new place, says the kernel (EXDEV)
_LINKED = _REFER | _WRITE_FILE | _TRUNCATE
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET_TCP = 0b11  # bind, connect: ABI 4
_SCOPES = 0b11  # abstract sockets, signals: ABI 6

# numbers by machine: (AUDIT_ARCH, denied). Networking first, then what would widen
# the process's reach. fork, threads and memory stay: they are the caller's limits.
_DENIED = {
    "x86_64": (
        0xC000003E,
        (
            # socket connect sendto sendmsg bind listen socketpair sendmmsg
            *(41, 42, 44, 46, 49, 50, 53, 307),
            # execve execveat ptrace process_vm_readv/writev kcmp
            *(59, 322, 101, 310, 311, 312),
            # mknod mknodat mount umount2 pivot_root chroot setns unshare
            *(133, 259, 165, 166, 155, 161, 308, 272),
            # init_module finit_module kexec_load bpf perf_event_open userfaultfd
            *(175, 313, 246, 321, 298, 323),
            # keyctl add_key request_key io_uring_setup/enter/register
            *(250, 248, 249, 425, 426, 427),
            # new mount API, pidfd_getfd, name_to_handle_at open_by_handle_at
            *(428, 429, 430, 431, 432, 433, 442, 438, 303, 304),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(198, 203, 206, 211, 200, 201, 199, 269),
            *(221, 281, 117, 270, 271, 272),
            *(33, 40, 39, 41, 51, 268, 97),
            *(105, 273, 104, 280, 241, 282),
            *(219, 217, 218, 425, 426, 427),
            *(428, 429, 430, 431, 432, 433, 442, 438, 264, 265),
        ),
    ),
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@record
class Confined:
    """What the kernel granted.

    Attributes:
        landlock_abi: 0 when the kernel has no Landlock.
        seccomp: whether the system calls are filtered.
        missing: what was not to be had, in words.
    """

    landlock_abi: int
    seccomp: bool
    missing: tuple[str, ...]

    @property
    def writes_bounded(self) -> bool:
        """Whether nothing outside the staging folder can be changed."""
        return self.landlock_abi > 0

    @property
    def network_denied(self) -> bool:
        """Whether no connection can be opened."""
        return self.seccomp


def confine(
    write: Path | str,
    *,
    link_from: Path | str | None = None,
    read: Iterable[Path] | None = None,
    seccomp: bool = True,
) -> Confined:
    """Confine this process, irrevocably. Call it before any thread is started.

    Args:
        write: the only folder below which anything may be changed.
        link_from: a tree whose files may be hard-linked into `write`. Its files can
            then be written to as well, as they could through the links: pass it only
            when the owner chose hard links.
        read: the only files and folders that may be read (besides `write`); None
            leaves reading alone. Python reads its library when it imports.
        seccomp: whether to filter system calls; False for a tool that must exec.

    Raises:
        OSError: `write`, or one of the others, cannot be opened.
    """
    missing = []
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    abi = _landlock_abi()
    if abi > 0:
        _landlock(abi, write, link_from, None if read is None else tuple(read))
    else:
        missing.append("landlock: this kernel cannot bound where the worker writes")
    if 0 < abi < 3:
        missing.append(f"landlock ABI {abi} cannot deny truncation")
    filtered = False
    if seccomp:
        problem = _seccomp()
        filtered = not problem
        if problem:
            missing.append(problem)
    return Confined(abi, filtered, tuple(missing))


def _prctl(option: int, *values: int | ctypes.Array[ctypes.c_char]) -> None:
    padded = [*values, *([0] * (4 - len(values)))]
    arguments = [ctypes.c_ulong(v) if isinstance(v, int) else v for v in padded]
    if _libc.prctl(ctypes.c_int(option), *arguments) != 0:
        raise _error("prctl")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _landlock_abi() -> int:
    """Return the kernel's Landlock ABI, 0 without Landlock (or with it disabled)."""
    found: int = _libc.syscall(
        ctypes.c_long(_CREATE_RULESET),
        None,
        ctypes.c_size_t(0),
        ctypes.c_uint(_CREATE_RULESET_VERSION),
    )
    return max(found, 0)


def _landlock(
    abi: int,
    write: Path | str,
    link_from: Path | str | None,
    read: Sequence[Path] | None,
) -> None:
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
    ruleset = _libc.syscall(
        ctypes.c_long(_CREATE_RULESET),
        attributes,
        ctypes.c_size_t(len(attributes)),
        ctypes.c_uint(0),
    )
    if ruleset < 0:
        raise _error("landlock_create_ruleset")
    try:
        _allow(ruleset, write, (_BELOW | reading) & handled)
        if link_from is not None:
            _allow(ruleset, link_from, (_LINKED | reading) & handled)
        for path in read or ():
            _allow(ruleset, path, reading)
        if (
            _libc.syscall(
                ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)
            )
            != 0
        ):
            raise _error("landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path | str, rights: int) -> None:
    there = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, there)
        if (
            rights
            and _libc.syscall(
                ctypes.c_long(_ADD_RULE),
                ctypes.c_int(ruleset),
                ctypes.c_int(_RULE_PATH_BENEATH),
                rule,
                ctypes.c_uint(0),
            )
            != 0
        ):
            raise _error(f"landlock_add_rule {path}")
    finally:
        os.close(there)


def _seccomp() -> str:
    """Filter system calls; return what stood in the way, or nothing."""
    machine = os.uname().machine
    if machine not in _DENIED or struct.calcsize("P") != 8:
        return f"seccomp: no filter for {machine}"
    program = _program(*_DENIED[machine])
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: unsigned short len, then (aligned) a pointer
    fprog = ctypes.create_string_buffer(
        struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    )
    try:
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, fprog)
    except OSError as error:
        return f"seccomp: the kernel refuses ({error.strerror})"
    return ""


def _program(audit_arch: int, denied: Sequence[int]) -> bytes:
    """Return a BPF filter: kill on a foreign architecture, EPERM for `denied`."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050000 | errno.EPERM, 0x7FFF0000
    steps = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, audit_arch),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr
        # x32 numbers would slip past the list
        (at_least, len(denied) + 1, 0, 0x40000000),
    ]
    for index, number in enumerate(denied):
        steps.append((equal, len(denied) - index, 0, number))
    steps += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return b"".join(struct.pack("@HBBI", *step) for step in steps)
