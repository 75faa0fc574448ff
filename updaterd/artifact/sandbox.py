"""Run a job in a process of its own, which a hostile bundle may take down alone."""

import json
import marshal
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

import updaterd
from updaterd import oom
from updaterd.artifact.job import Job, Report, entries, rows
from updaterd.core.records import values
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)

__all__ = ["ENVIRONMENT", "Job", "Report", "command", "plain", "run"]

Progress = Callable[[int, int], None]

ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",
    # Buffers of a batch are used again and again: do not hand them back each time.
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "16777216",
}
"""All that a worker's environment holds."""

_START = (
    "import sys; sys.path[:] = sys.argv.pop().split(chr(10));"
    "import updaterd.artifact.child as child; child.leave()"
)
_NOT_FLUSHED = 120  # what Python exits with when its last words cannot be written
_LINE = 256 * 2**20
_KINDS: dict[str, type[UpdaterError]] = {
    "transient": TransientError,
    "rejected": RejectedError,
    "broken": BrokenError,
}


def run(job: Job, *, on_progress: Progress | None = None) -> Report:
    """Do the job in a worker process and return its report.

    Args:
        job: what to make of which bundle.
        on_progress: called with bytes made and bytes in all.

    Raises:
        RejectedError: the bundle is not what it should be, or broke its limits.
        TransientError: the disk is full, or the worker was killed.

    Power cut: the destination holds some of the tree; it counts only once the
        caller has synced and renamed it.
    """  # noqa: DOC501  raised through _error and _died
    memory = oom.Watch()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - this interpreter, with our own arguments
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            close_fds=True,
            cwd="/",
            env=ENVIRONMENT,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as pipe:
                pipe.write(plain(job))
            last = _listen(process.stdout, on_progress)
        except BrokenPipeError:
            last = {}
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        if "report" in last and code == 0:
            return _report(last["report"])
        if "error" in last:
            raise _error(last["error"])
        errors.seek(max(0, errors.tell() - 2000), os.SEEK_SET)
        starved = code == -signal.SIGKILL and memory.has_killed
        raise _died(code, errors.read().decode(errors="replace"), starved=starved)


def command() -> list[str]:
    """Return how a worker is started: with this process's modules, and no others.

    Without `site`, which would look through every `.pth` file again, and with what it
    would have said about byte code: a release is closed, nothing is written below it.
    """
    mine = os.path.dirname(os.path.dirname(os.path.abspath(updaterd.__file__)))
    path = [mine, *(os.path.abspath(entry) for entry in sys.path if entry)]
    closed = ["-B"] if sys.dont_write_bytecode else []
    if sys.pycache_prefix is not None:
        closed += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return [sys.executable, "-I", "-S", *closed, "-c", _START, "\n".join(path)]


def plain(job: Job) -> bytes:
    """Return a job as the worker reads it from stdin."""
    line: dict[str, Any] = dict(zip(Job.__match_args__, values(job), strict=True))
    line["files"] = rows(job.files)
    line["old_files"] = rows(job.old_files)
    for name in ("bundle", "destination", "old"):
        if line[name] is not None:
            line[name] = os.path.abspath(line[name])
    return marshal.dumps(line)


def _listen(pipe: IO[bytes], on_progress: Progress | None) -> dict[str, Any]:
    """Return the worker's last line; progress is passed on as it comes."""
    last: dict[str, Any] = {}
    while text := pipe.readline(_LINE):
        try:
            last = json.loads(text)
        except ValueError:
            return {}
        if on_progress is not None and "done" in last:
            on_progress(last["done"], last["total"])
    return last


def _report(plain: dict[str, Any]) -> Report:
    plain["files"] = entries(plain["files"])
    plain["bad_old_files"] = tuple(plain["bad_old_files"])
    plain["missing"] = tuple(plain["missing"])
    return Report(**plain)


def _error(plain: dict[str, str]) -> UpdaterError:
    kind = _KINDS.get(plain["kind"], RejectedError)
    return kind(plain["what"], means=plain["means"], do=plain["do"], code=plain["code"])


def _killed(*, starved: bool) -> TransientError:
    if starved:
        return TransientError(
            "the process that opens bundles was killed: out of memory",
            do=oom.CURE,
            code="out_of_memory",
        )
    return TransientError(
        "the worker was killed", means="by a person, perhaps", code="worker_killed"
    )


def _died(code: int, said: str, *, starved: bool) -> UpdaterError:
    """Return what the end of a worker without an answer means."""
    if code == -signal.SIGKILL:
        return _killed(starved=starved)
    if code == -signal.SIGBUS:
        # Without the compiled module long old files are mapped; what a bad sector or a
        # cut takes away is fatal then.
        return RejectedError(
            "an installed file could not be read",
            means="the disk is failing, or the file was cut short just now",
            do="look at the disk; another bundle is tried",
            code="bad_old_files",
        )
    if code == -signal.SIGXCPU:
        return RejectedError(
            "the bundle takes too long to apply", code="cpu_limit", do="publish again"
        )
    if code == _NOT_FLUSHED or "OSError: [Errno " in said:
        # The machine's trouble: it must not count against the release.
        line = said.strip().rsplit("\n", 1)[-1]
        return TransientError(
            f"the worker ended early: {line or 'it could not answer':.200}",
            do="look at the disk",
            code="disk_error",
        )
    if "MemoryError" in said:
        return RejectedError(
            "the bundle needs more memory than it may have", code="memory_limit"
        )
    line = said.strip().rsplit("\n", 1)[-1]
    return MalformedError(
        f"the worker ended with {code}: {line:.200}", code="worker_crashed"
    )
