"""Run a job in a process of its own, which a hostile bundle may take down alone."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

from updaterd.artifact.job import Job, Report, entries, rows
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)

__all__ = ["Job", "Report", "run"]

Progress = Callable[[int, int], None]

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
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-I", "-m", "updaterd.artifact.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            close_fds=True,
            cwd="/",
            env={"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as pipe:
                pipe.write(_plain(job))
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
        raise _died(code, errors.read().decode(errors="replace"))


def _plain(job: Job) -> bytes:
    plain: dict[str, Any] = {
        name: getattr(job, name) for name in job.__dataclass_fields__
    }
    plain["files"] = rows(job.files)
    plain["old_files"] = rows(job.old_files)
    plain["only"] = None if job.only is None else sorted(job.only)
    for name in ("bundle", "destination", "old"):
        value = plain[name]
        plain[name] = None if value is None else os.path.abspath(value)
    return json.dumps(plain).encode()


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


def _died(code: int, said: str) -> UpdaterError:
    """Return what the end of a worker without an answer means."""
    if code == -signal.SIGKILL:
        return TransientError(
            "the worker was killed",
            means="by a person, or because the machine ran out of memory",
            code="worker_killed",
        )
    if code == -signal.SIGXCPU:
        return RejectedError(
            "the bundle takes too long to apply", code="cpu_limit", do="publish again"
        )
    if "MemoryError" in said:
        return RejectedError(
            "the bundle needs more memory than it may have", code="memory_limit"
        )
    line = said.strip().rsplit("\n", 1)[-1]
    return MalformedError(
        f"the worker ended with {code}: {line:.200}", code="worker_crashed"
    )
