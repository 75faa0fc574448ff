"""The worker process that opens bundles; `sandbox` starts it.

A job comes on stdin, marshalled by the same Python; progress and one report go to
stdout as lines of JSON. For a small delta most of its life would go into importing,
so it imports little, and of the standard library nothing that imports much itself.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import resource
import sys
from hashlib import sha256

from updaterd.artifact.job import Job, entries, rows
from updaterd.artifact.limits import give_up
from updaterd.confine import confine
from updaterd.core.records import values
from updaterd.core.tree import File
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from updaterd.artifact.job import Report

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_EVERY = 1 << 22  # bytes between two progress lines


def _say(line: dict[str, Any]) -> None:
    import json  # noqa: PLC0415 - only what is not told by `_tell` needs it

    _tell(json.dumps(line))


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _progress() -> Callable[[int, int], None]:
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done - said >= _EVERY or done == total:
            said = done
            _tell(f'{{"done": {done}, "total": {total}}}')

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


def perform(job: Job) -> Report:
    """Do the job in this process.

    Raises:
        RejectedError: the bundle is not what it should be.
        MalformedError: or breaks its own limits.
        TransientError: the disk is full or failing.
    """
    try:
        fd = os.open(job.bundle, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_bundle(fd, job)
            if job.kind == "delta":
                from updaterd.artifact import patch  # noqa: PLC0415 - one of the two

                return patch.apply(job, fd, _progress())
            from updaterd.artifact import unpack  # noqa: PLC0415 - one of the two

            return unpack.apply(job, fd, _progress())
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
        if error.errno == errno.EFBIG:
            raise MalformedError("the bundle makes too large a file") from error
        raise TransientError(
            f"{job.destination}: {error}", code="disk_error"
        ) from error


def read(data: bytes) -> Job:
    """Return the job in the form that `sandbox.plain` gave it."""
    line = marshal.loads(data)  # noqa: S302 - from our own parent, not from a bundle
    line["files"] = entries(line["files"])
    line["old_files"] = entries(line["old_files"])
    return Job(**line)


def answer(report: Report) -> dict[str, Any]:
    """Return the report in its JSON form, with what the process used."""
    out = dict(zip(type(report).__match_args__, values(report), strict=True))
    out["files"] = rows(report.files)
    return out | used()


def used() -> dict[str, float]:
    """Return CPU seconds and peak memory of this process, 0 where it cannot be read."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: across fork it starts at what the parent had.
    try:
        with open("/proc/self/status", "rb") as file:
            status = file.read()
    except OSError:  # the disk fails, or /proc is not there: the verdict must get out
        status = b"VmHWM: 0"
    peak = status.split(b"VmHWM:", 1)[1].split(None, 1)[0]
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_rss": int(peak) * 1024}


def refusal(error: UpdaterError) -> dict[str, Any]:
    """Return an error in its JSON form."""
    kind = "rejected"
    if isinstance(error, TransientError):
        kind = "transient"
    elif isinstance(error, BrokenError):
        kind = "broken"
    parts = ("what", "means", "do", "code")
    return {"kind": kind, **{name: getattr(error, name) for name in parts}}


def main() -> int:
    """Do one job."""
    job = read(sys.stdin.buffer.read())
    lengths = [e.length for e in job.old_files if isinstance(e, File)]
    lengths += [e.length for e in job.files or () if isinstance(e, File)]
    give_up(
        memory=job.memory,
        cpu_s=60 + sum(lengths) // 2**22,
        file_bytes=max(lengths, default=0) if job.files is not None else 2**48,
    )
    # What this kernel lacks of it is no reason to refuse: nothing else rests on it.
    confine(job.destination, link_from=job.old if job.unchanged == "hardlink" else None)
    try:
        report = perform(job)
        if report.files is None and not report.missing and not report.bad_old_files:
            numbers = answer(report)
            _tell(_REPORT % numbers)
        else:
            _say({"report": answer(report)})
    except UpdaterError as error:
        _say({"error": refusal(error), "used": used()})
    return 0


def leave() -> NoReturn:
    """Do one job and end at once: there is nothing to tidy up that the kernel won't."""
    gc.disable()  # one job makes no rubbish worth looking for
    _import_less()
    code = main()
    sys.stdout.flush()
    os._exit(code)


def _import_less() -> None:
    """Leave out what would be imported for nothing: a twentieth of a small delta's CPU.

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


_REPORT = (
    '{"report": {"bytes_written": %(bytes_written)d,'
    ' "files_changed": %(files_changed)d, "files_shared": %(files_shared)d,'
    ' "files_done": %(files_done)d, "bad_old_files": [], "missing": [], "files": null,'
    ' "cpu_s": %(cpu_s)f, "peak_rss": %(peak_rss)d}}'
)
"""A report as `json` would write it: of the usual kind, without importing that."""


if __name__ == "__main__":
    sys.exit(main())
