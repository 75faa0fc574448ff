# SPDX-License-Identifier: Apache-2.0
"""The bundle opener, a confined process; `parent` starts it.

A job comes on stdin, marshalled by the same Python; numbers go to stdout (`answers`).
For a small delta most of its life would go into importing, so it imports little, and
of the standard library nothing that imports much itself. Everything it will need is
imported and opened before it gives up its rights: afterwards it can open nothing but
the old tree and its own.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import resource
import sys
from hashlib import sha256

from updaterd.artifact.job import Job, Used, entries
from updaterd.artifact.worker import answers
from updaterd.artifact.worker.confine import confine
from updaterd.artifact.worker.limits import give_up
from updaterd.core.bundle_kinds import ARCHIVES
from updaterd.core.tree import File
from updaterd.errors import RejectedError, TransientError, UpdaterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from updaterd.artifact.job import Made

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
UNHEARD = 75
"""Exit code: how the job ended could not be told (the pipe failed, or no memory)."""
_GROWTH, _GROUND = 16, 1 << 28  # as `archives.layout`'s
_EVERY = 1 << 22  # bytes between two times that progress is told


def _tell(frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(1, view) :]


def _progress() -> Callable[[int, int], None]:
    last = 0

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done - last >= _EVERY or done == total:
            last = done
            _tell(answers.progress(done, total))

    return tell


def _check_bundle(fd: int, job: Job) -> None:
    """Compare the bundle with the hash the manifest binds, before parsing it.

    Raises:
        RejectedError: it is another file.
    """
    size = os.fstat(fd).st_size
    state = sha256()
    at = 0
    while not job.partial and (data := os.pread(fd, 1 << 18, at)):
        state.update(data)
        at += len(data)
    if size != job.bundle_length or (
        not job.partial and state.hexdigest() != job.bundle_sha256
    ):
        raise RejectedError(
            f"{job.bundle} is not the bundle the manifest names",
            do="fetch it again",
            code="hash_mismatch",
        )


def make(job: Job, progress: Callable[[int, int], None] | None = None) -> Made:
    """Make the files that need the bundle, in this process.

    Raises:
        RejectedError: the bundle is not what it should be.
        MalformedError: or breaks its own limits.
        TransientError: the disk is full or failing, or its file system takes no file so
            long: what a file may hold follows from the listing.
    """
    try:
        fd = _opened(job.bundle)
        try:
            _check_bundle(fd, job)
            if job.kind == "delta":
                from updaterd.artifact import patch  # noqa: PLC0415 - one of the two

                return patch.apply(job, fd, progress)
            from updaterd.artifact import unpack  # noqa: PLC0415 - one of the two

            return unpack.apply(job, fd, progress)
        finally:
            os.close(fd)
    except MemoryError:
        raise RejectedError(
            "the bundle needs more memory than it may have",
            do="publish it again",
            code="memory_limit",
        ) from None
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise TransientError(
                f"no space left for {job.destination}",
                do="free some space",
                code="disk_full",
            ) from error
        raise TransientError(
            f"{job.destination}: {error}", code="disk_error"
        ) from error


def _opened(bundle: object) -> int:
    """Return a descriptor of a bundle."""
    if isinstance(bundle, int):
        return os.dup(bundle)
    return os.open(
        str(bundle), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    )


def read(data: bytes) -> Job:
    """Return the job in the form that `parent.plain` gave it."""
    line = marshal.loads(data)  # noqa: S302 - from our own parent, not from a bundle
    line["files"] = entries(line["files"])
    line["old_files"] = entries(line["old_files"])
    return Job(**line)


class _Usage:
    """What this process takes; opened before it may open nothing more."""

    def __init__(self) -> None:
        try:
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # the disk fails, or /proc is not there: the verdict counts
            self._status = -1

    def used(self) -> Used:
        """Return CPU seconds and peak memory, 0 where it cannot be read."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        # Not ru_maxrss: across fork it starts at what the parent had.
        try:
            status = os.pread(self._status, 1 << 14, 0)
        except OSError:
            status = b""
        peak = status.partition(b"VmHWM:")[2].split(None, 1)  # not every kernel has it
        kib = int(peak[0]) if peak else 0
        return Used(usage.ru_utime + usage.ru_stime, kib * 1024)


def main() -> int:
    """Do one job; return the exit code."""
    with open(0, "rb", closefd=False) as stdin:
        job = read(stdin.read())
    usage = _Usage()
    _import_for(job)
    give_up(memory=job.memory, cpu_s=cpu_limit(job), file_bytes=_longest(job))
    try:
        _work(job, usage)
    except (OSError, MemoryError):
        return UNHEARD
    return 0


def _work(job: Job, usage: _Usage) -> None:
    """Do a job in the cage, and tell how it ended.

    Raises:
        OSError: nobody hears it.
        MemoryError: there is not enough to tell it.
    """
    try:
        confined = confine(job.destination, read=() if job.old is None else (job.old,))
    except OSError as error:
        _tell(answers.failure(error, "worker_crashed", usage.used()))
        return
    _tell(answers.cage(confined))
    try:
        result = make(job, _progress())
    except UpdaterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        entry = getattr(error, "entry", answers.NOWHERE)
        _tell(answers.failure(cause, error.code, usage.used(), entry=entry))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - nobody would read a trace
        _tell(answers.failure(error, "worker_crashed", usage.used()))
    else:
        _tell(answers.completed(result, usage.used()))


def cpu_limit(job: Job) -> int:
    """Return how many CPU seconds a job may take."""
    rate = 2**20 if job.codec.startswith(ARCHIVES) else 2**22
    return 60 + sum(sizes(job)) // rate


def _longest(job: Job) -> int:
    """Return how long a file may become."""
    if job.files is None:
        return 2**48
    if job.codec.startswith(ARCHIVES):  # what is inflated lies in one, of both sides
        return _GROWTH * sum(sizes(job)) + 2 * _GROUND
    return max(sizes(job), default=0)


def sizes(job: Job) -> list[int]:
    """Return the lengths of all files of both trees, as far as they are known."""
    lengths = [e.length for e in job.old_files if isinstance(e, File)]
    return lengths + [e.length for e in job.files or () if isinstance(e, File)]


def leave() -> NoReturn:
    """Do one job and end at once: there is nothing to tidy up that the kernel won't."""
    gc.disable()  # one job makes no rubbish worth looking for
    _import_less()
    os._exit(main())


def _import_for(job: Job) -> None:
    """Import what the job will need: later on nothing can be."""
    from updaterd.artifact import codecs  # noqa: PLC0415 - see above

    codecs.prepare(job.codec)
    if job.kind != "delta":
        from updaterd.artifact import unpack  # noqa: F401, PLC0415 - see above

        return
    from updaterd.artifact import patch  # noqa: PLC0415 - see above
    from updaterd.artifact.apply import loops  # noqa: PLC0415 - see above

    patch.prepare(job.codec, job.destination)
    loops.prepare()


def _import_less() -> None:
    """Leave out what would be imported for nothing: 10 of the 62 ms of CPU of a start.

    `array` asks for `collections.abc`, which `os` has loaded under its own name, and
    would get all of `collections` with it; the packages `bsdiff4` and `backports.zstd`
    import, besides their cores, what they need to read and write files.
    """
    names = ("collections", "collections.abc")  # either would load the first
    sys.modules.update(dict.fromkeys(names, sys.modules["_collections_abc"]))
    import array  # noqa: F401, PLC0415 - imported once, it stays

    for name in names:
        del sys.modules[name]  # others want the real ones
    for name in ("bsdiff4", "backports.zstd"):
        package = type(sys)(name)
        folder = name.replace(".", "/")
        package.__path__ = [f"{entry}/{folder}" for entry in sys.path]
        sys.modules.setdefault(name, package)


if __name__ == "__main__":
    sys.exit(main())
