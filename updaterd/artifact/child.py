"""The worker process that opens bundles: `python -I -m updaterd.artifact.child`.

A job comes on stdin as JSON; progress and one report go to stdout as lines of JSON.
It imports little, so that it starts fast and its memory is the bundle's.
"""

import errno
import hashlib
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from updaterd.artifact import patch, unpack
from updaterd.artifact.job import Job, Report, entries, rows
from updaterd.artifact.limits import give_up
from updaterd.confine import confine
from updaterd.core.manifest import File
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_EVERY = 1 << 22  # bytes between two progress lines


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _progress() -> Callable[[int, int], None]:
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done - said >= _EVERY or done == total:
            said = done
            _say({"done": done, "total": total})

    return tell


def _check_bundle(fd: int, job: Job) -> None:
    """Compare the bundle with the hash the manifest binds, before parsing it.

    Raises:
        RejectedError: it is another file.
    """
    size = os.fstat(fd).st_size
    state = hashlib.sha256()
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
            work = patch.apply if job.kind == "delta" else unpack.apply
            return work(job, fd, _progress())
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


def read(line: dict[str, Any]) -> Job:
    """Return the job in its JSON form."""
    line["files"] = entries(line["files"])
    line["old_files"] = entries(line["old_files"])
    for name in ("bundle", "destination", "old"):
        line[name] = None if line[name] is None else Path(line[name])
    line["only"] = None if line["only"] is None else frozenset(line["only"])
    return Job(**line)


def answer(report: Report) -> dict[str, Any]:
    """Return the report in its JSON form, with what the process used."""
    out = asdict(report)
    out["files"] = rows(report.files)
    return out | used()


def used() -> dict[str, float]:
    """Return CPU seconds and peak memory of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: across fork it starts at what the parent had.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss": int(peak.split()[1]) * 1024,
    }


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
    job = read(json.load(sys.stdin))
    listed = (*(job.files or ()), *job.old_files)
    lengths = [e.length for e in listed if isinstance(e, File)]
    total = sum(lengths)
    give_up(
        memory=job.memory,
        cpu_s=60 + total // 2**22,
        file_bytes=max(lengths, default=0) if job.files is not None else 2**48,
    )
    # What this kernel lacks of it is no reason to refuse: nothing else rests on it.
    confine(job.destination, link_from=job.old if job.unchanged == "hardlink" else None)
    try:
        _say({"report": answer(perform(job))})
    except UpdaterError as error:
        _say({"error": refusal(error), "used": used()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
