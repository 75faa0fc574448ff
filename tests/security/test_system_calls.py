# SPDX-License-Identifier: Apache-2.0
"""A program in the cage that tries every system call there is, by its number.

What passes is what `confine.seccomp` lists, no more and no less; so nobody finds out
which call a later kernel, or a later edit, has let in.
"""

import errno
import json
import os
import subprocess
import sys

import pytest
from fakes.tools import refuse

from updaterd.artifact.worker.confine import seccomp

MACHINE = os.uname().machine
COLUMN = 1 if MACHINE == "x86_64" else 2
CONFINED = """
import ctypes, errno, json, mmap, os, signal, sys
from updaterd.artifact.worker.limits import give_up
from updaterd.artifact.worker.confine import confine
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, arguments=(-1,) * 6):
    ctypes.set_errno(0)
    answer = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return ctypes.get_errno() if answer == -1 else 0
def close():
    give_up(memory=2**27, cpu_s=60, file_bytes=0)
    assert confine(sys.argv[1], read=()).seccomp
"""
REFUSED = """
close()
numbers = [n for n in range(1024) if n not in json.loads(sys.argv[2])]
answers = {}
for base in (0, 0x40000000):  # and the same calls as x32 has them
    for number in numbers if not base else range(1024):
        answers[base + number] = call(base + number)
sys.stdout.write(json.dumps(answers))
sys.stdout.flush()
"""
PASSES = """
answers = []
for number, arguments in json.loads(sys.argv[2]):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        close()
        answer = call(number, arguments)
        os.write(writer, answer.to_bytes(4, "little"))
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 4)
    os.close(reader)
    os.waitpid(child, 0)
    # one that ends the process has passed, too
    answers.append(int.from_bytes(said, "little") if said else None)
print(json.dumps(answers))
"""
FOREIGN = """
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # getpid, as a 32-bit program asks
place = ctypes.addressof(ctypes.c_char.from_buffer(code))
close()
print(ctypes.CFUNCTYPE(ctypes.c_int)(place)())
"""
# uretprobe, uprobe: the kernel's own trampolines, which Linux lets past every filter
# (from 6.13 on), and which end or refuse whoever else calls them.
PAST_FILTERS = {"x86_64": [335, 336], "aarch64": []}
ANONYMOUS = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
# Arguments of which nothing comes, where -1 for all would be refused or wait.
HARMLESS = {
    "mmap": (0, 4096, 1, ANONYMOUS, -1, 0),
    "mprotect": (0, 0, 1),
    "fcntl": (-1, 1, 0),
    "openat": (-1, 0, 0, 0),
    "mkdirat": (-1, 0, 0o755),
    "futex": (0, 1, 0, 0, 0, 0),
}
UNMET = {
    "mmap": [(0, 4096, 5, ANONYMOUS, -1, 0), (0, 4096, 4, ANONYMOUS, -1, 0)],
    "mprotect": [(0, 0, 5), (0, 0, 7)],
    # F_SETFL, F_SETLK, F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ, seals
    "fcntl": [(1, n, 0) for n in (0, 2, 4, 6, 8, 10, 37, 1024, 1026, 1031, 1033)],
    "openat": [
        (-1, 0, os.O_CREAT, 0o4755),
        (-1, 0, os.O_CREAT, 0o666),
        (-1, 0, os.O_TMPFILE | os.O_WRONLY, 0o777),
    ],
    "mkdirat": [(-1, 0, 0o777), (-1, 0, 0o1755)],
}


@pytest.fixture(autouse=True)
def _filtered():
    if MACHINE not in seccomp.ARCHITECTURES:
        refuse(f"no filter for {MACHINE}")


def _tried(tmp_path, body, *arguments):
    return subprocess.run(
        [sys.executable, "-I", "-c", CONFINED + body, str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_no_other_call_passes(tmp_path):
    """All numbers to 1023, twice: kernels have some 460 of them."""
    past = PAST_FILTERS[MACHINE]
    allowed = [row[COLUMN] for row in seccomp.ALLOWED] + past
    done = _tried(tmp_path, REFUSED, json.dumps(allowed))

    assert 0 == done.returncode, done.stderr
    answers = {
        int(number): answer for number, answer in json.loads(done.stdout).items()
    }
    assert errno.ENOSYS == answers.pop(seccomp.CLONE3)
    assert 2 * 1024 - len(allowed) - 1 == len(answers)
    assert {errno.EPERM} == set(answers.values())
    done = _tried(tmp_path, PASSES, json.dumps([(number, (0,) * 6) for number in past]))
    assert set(json.loads(done.stdout)) <= {errno.EPERM, errno.ENXIO, None}


def test_what_is_listed_passes(tmp_path):
    """Or the list would be longer than what a parser needs."""
    calls = [(row[COLUMN], HARMLESS.get(row[0], (-1,) * 6)) for row in seccomp.ALLOWED]
    done = _tried(tmp_path, PASSES, json.dumps(calls))

    assert 0 == done.returncode, done.stderr
    names = [row[0] for row in seccomp.ALLOWED]
    answers = zip(names, json.loads(done.stdout), strict=True)
    assert not [name for name, answer in answers if answer == errno.EPERM]


def test_what_does_not_meet_its_condition_is_refused(tmp_path):
    """No code, no modes beyond a release's, nothing of a descriptor but copies."""
    numbers = {row[0]: row[COLUMN] for row in seccomp.ALLOWED}
    conditional = {row[0] for row in seccomp.ALLOWED if row[3] != seccomp.ANY}
    assert conditional == set(UNMET)
    calls = [(numbers[name], given) for name, many in UNMET.items() for given in many]
    done = _tried(tmp_path, PASSES, json.dumps(calls))

    assert 0 == done.returncode, done.stderr
    assert {errno.EPERM} == set(json.loads(done.stdout))


def test_a_program_of_another_architecture_is_ended(tmp_path):
    """Its numbers mean other calls: the first of them ends the process."""
    if MACHINE != "x86_64":
        refuse("needs x86-64")
    done = _tried(tmp_path, FOREIGN)

    assert done.returncode < 0, done.stdout


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_a_filter_fits_into_its_jumps(machine):
    """Eight bits each: a longer list would lead elsewhere."""
    code = seccomp.program(machine)

    assert 0 == len(code) % 8
    assert len(code) // 8 < 256
