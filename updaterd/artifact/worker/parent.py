# SPDX-License-Identifier: Apache-2.0
"""Run a job in a process of its own, which a hostile bundle may take down alone.

The process is confined, makes the files that need the bundle, and says in numbers what
became of it. When it and all that it may have started are dead, the tree is hashed and
completed here (`completion`): nothing that the process says is believed.
"""

import errno
import marshal
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import IO, Any

import updaterd
from updaterd.artifact.destination import Destination
from updaterd.artifact.job import Job, Report, rows
from updaterd.artifact.worker import answers, completion, descendants, verdict
from updaterd.artifact.worker.answers import Failure
from updaterd.artifact.worker.child import cpu_limit, sizes
from updaterd.artifact.worker.confine import Confined
from updaterd.artifact.worker.verdict import Answer
from updaterd.core import budget
from updaterd.core.frozen import record, replaced, values
from updaterd.errors import TransientError, UpdaterError
from updaterd.system import oom

__all__ = [
    "ENVIRONMENT",
    "Answer",
    "Job",
    "Patience",
    "Report",
    "ask",
    "command",
    "patience",
    "plain",
    "probe",
    "run",
]

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
    "import updaterd.artifact.worker.child as child; child.leave()"
)
_HIDDEN = "__import__('sys').modules['updaterd.artifact._native'] = None; "
_PIECE = 1 << 16
_MOST_PROGRESS = 1 << 16  # times that it is passed on
_PATIENCE_S = 600  # without a word, beyond the CPU seconds that it may take
_SLOWEST = 1 << 16  # bytes a second, of both trees, beyond that
_TEXT = 2000
_at_work: set[int] = set()
_changing = threading.Lock()


@record
class Patience:
    """How long a worker is heard: seconds without a word, and in all."""

    silence_s: float
    total_s: float


def patience(job: Job) -> Patience:
    """Return how long a job's worker is heard."""
    silence = _PATIENCE_S + cpu_limit(job)
    return Patience(silence, silence + sum(sizes(job)) / _SLOWEST)


def run(
    job: Job,
    *,
    on_progress: Progress | None = None,
    argv: Sequence[str] = (),
    on_confined: Callable[[Confined], None] | None = None,
) -> Report:
    """Do the job in a worker process and return its report.

    Args:
        job: what to make of which bundle.
        on_progress: called with bytes made and bytes in all.
        argv: how the process is started, if not as `command` says.
        on_confined: called with the layers of its cage.

    Raises:
        RejectedError: the bundle is not what it should be, or broke its limits.
        TransientError: the disk is full, or the worker was killed.
        OSError: the disk refused.

    Power cut: the destination holds some of the tree; it counts only once the
        caller has synced and renamed it.
    """  # noqa: DOC501  raised through verdict
    with closing(Destination(job.destination)) as destination:
        answer = ask(
            replaced(job, destination=destination.root),
            on_progress=on_progress,
            argv=argv,
        )
        if answer.confined is not None and on_confined is not None:
            on_confined(answer.confined)
        if isinstance(answer.end, Failure):
            raise verdict.failed(
                answer.end, job, is_confined=answer.confined is not None
            )
        if answer.end is None or answer.code != 0:
            raise verdict.died(answer, job)
        try:
            return completion.complete(
                job, answer.end.result, destination, answer.end.used
            )
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise verdict.disk(verdict.FULL_DISK, job, error.errno) from error


def ask(
    job: Job,
    *,
    on_progress: Progress | None = None,
    argv: Sequence[str] = (),
    within: Patience | None = None,
) -> Answer:
    """Let a confined process do its part of a job; return what it said.

    It and all that it may have started are dead then.

    Args:
        job: what to make of which bundle.
        on_progress: called with bytes made and bytes in all.
        argv: how the process is started, if not as `command` says.
        within: how long it is heard, if not as `patience` says.

    Raises:
        TransientError: it said nothing for too long, did not end, or left others
            running.

    Power cut: see `run`.
    """
    reader = answers.Reader()
    memory = oom.Watch()
    with (
        tempfile.TemporaryFile() as errors,
        _opened(job) as (descriptors, fds),
        descendants.guarded(),
    ):
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own arguments
            list(argv) or command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=fds,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
        with process, _registered(process.pid):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(BrokenPipeError), process.stdin as pipe:
                    pipe.write(plain(descriptors))
                _listen(process, reader, on_progress, within or patience(job))
            except BaseException:
                process.kill()
                raise
            finally:
                code = process.wait()
                process.stdout.close()
                with _changing:
                    descendants.end(_at_work - {process.pid})
        text = "" if reader.confined else _tail(errors)
    starved = code == -signal.SIGKILL and memory.has_killed
    return Answer(reader.confined, reader.end, code, starved, text)


def probe(folder: str) -> Confined | None:
    """Return the layers that a cage has here; None where none can be built.

    Args:
        folder: any that this user may write; nothing is made in it.
    """
    nothing = Job(
        kind="full",
        codec="",
        bundle=os.devnull,
        bundle_sha256="",
        bundle_length=-1,
        destination=folder,
        files=(),
        tree="",
    )
    try:
        return ask(nothing).confined
    except (OSError, UpdaterError):
        return None


@contextmanager
def _registered(pid: int) -> Iterator[None]:
    """Keep a process from being taken for another one's orphan."""
    with _changing:
        _at_work.add(pid)
    try:
        yield
    finally:
        with _changing:
            _at_work.discard(pid)


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Job, list[int]]]:
    """Open what a job names; yield it with descriptors in place of paths.

    Raises:
        OSError: something is not there, or not readable.
    """
    fds: list[int] = []
    descriptors: dict[str, int] = {}
    passed: list[int] = []
    folder = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    places = (
        (
            "bundle",
            job.bundle,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
        ),
        ("destination", job.destination, folder),
        ("old", job.old, folder),
    )
    try:
        for name, place, flags in places:
            if place is None:
                continue
            if not isinstance(place, int):
                place = os.open(place, flags)  # noqa: PLW2901 - the same, opened
                fds.append(place)
            descriptors[name] = place
            passed.append(place)
        yield replaced(job, **descriptors), passed
    finally:
        for fd in fds:
            os.close(fd)


def command(*, interpreted: bool = False) -> list[str]:
    """Return how a worker is started: with this process's modules, and no others.

    Args:
        interpreted: with the loops in Python, as where there was no compiler.

    Without `site`, which would look through every `.pth` file again, and with what it
    would have said about byte code: a release is closed, nothing is written below it.
    """
    import_root = os.path.dirname(os.path.dirname(os.path.abspath(updaterd.__file__)))
    path = [import_root, *(os.path.abspath(entry) for entry in sys.path if entry)]
    closed = ["-B"] if sys.dont_write_bytecode else []
    if sys.pycache_prefix is not None:
        closed += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    start = (_HIDDEN if interpreted else "") + _START
    return [sys.executable, "-I", "-S", *closed, "-c", start, "\n".join(path)]


def plain(job: Job) -> bytes:
    """Return a job as the worker reads it from stdin."""
    line: dict[str, Any] = dict(zip(Job.__match_args__, values(job), strict=True))
    line["memory"] = job.memory or budget.applying(job.old_files, job.files)
    line["files"] = rows(job.files)
    line["old_files"] = rows(job.old_files)
    for name in ("bundle", "destination", "old"):
        if line[name] is not None and not isinstance(line[name], int):
            line[name] = os.path.abspath(line[name])
    return marshal.dumps(line)


def _listen(
    process: subprocess.Popen[bytes],
    reader: answers.Reader,
    on_progress: Progress | None,
    within: Patience,
) -> None:
    """Hear a worker until it ends; whoever else holds its pipe is not waited for.

    Raises:
        MalformedError: it says what cannot be said.
        TransientError: it says nothing for too long, or does not end.
    """  # noqa: DOC501  raised through _too_long
    deadline = time.monotonic() + within.total_s
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    ending = os.pidfd_open(process.pid)
    last, count, is_open = -1, 0, True
    try:
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        poll.register(ending, select.POLLIN)
        while True:
            remaining_s = deadline - time.monotonic()
            events = dict(poll.poll(max(0, min(within.silence_s, remaining_s)) * 1000))
            if remaining_s <= 0 or not events:
                raise _too_long(within, is_silent=remaining_s > within.silence_s)
            # What it said before its end is read after that, as far as it is there.
            data = _read(pipe) if is_open else b""
            while data:
                for done, total in reader.feed(data):
                    if done > last and count < _MOST_PROGRESS:
                        last, count = done, count + 1
                        if on_progress is not None:
                            on_progress(done, total)
                data = _read(pipe) if reader.end is None else b""
                if time.monotonic() > deadline:
                    raise _too_long(within, is_silent=False)
            if ending in events:
                return
            if data is None:
                is_open = False
                poll.unregister(pipe)
    finally:
        os.close(ending)


def _too_long(within: Patience, *, is_silent: bool) -> TransientError:
    """Return what it means that a worker is not heard any longer."""
    how = (
        f"was silent for {within.silence_s:.0f} s"
        if is_silent
        else f"did not end within {within.total_s:.0f} s"
    )
    return TransientError(
        f"the bundle opener {how}",
        means="what it made is not used",
        do="look at the disk",
        code="worker_silent",
    )


def _read(pipe: int) -> bytes | None:
    """Return what is in a pipe now, nothing when that is nothing; None at its end."""
    try:
        return os.read(pipe, _PIECE) or None
    except BlockingIOError:
        return b""


def _tail(errors: IO[bytes]) -> str:
    """Return the end of what was written to stderr."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TEXT))
    return errors.read(_TEXT).decode(errors="replace")
