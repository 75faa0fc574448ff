# SPDX-License-Identifier: Apache-2.0
"""What the end of the bundle opener means: whose fault, in which words.

Its answer is a number, and its end a signal or an exit code. Only what contents can
cause speaks against a bundle (docs/decisions/0026).
"""

import os
import signal

from updaterd.artifact.job import Job
from updaterd.artifact.worker.answers import Done, Failure
from updaterd.artifact.worker.child import UNHEARD
from updaterd.artifact.worker.confine import Confined
from updaterd.core import codes
from updaterd.core.frozen import record
from updaterd.errors import MalformedError, RejectedError, TransientError, UpdaterError
from updaterd.system import oom

FULL_DISK = "disk_full"
_TRANSIENT = frozenset({FULL_DISK, "disk_error"})
_NOT_FLUSHED = 120  # what Python exits with when its last words cannot be written
# What contents can do to whoever reads them; other signals come from other processes.
_CRASHES = frozenset({
    signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS,
})  # fmt: skip


@record
class Answer:
    """What a confined process said, and how it ended.

    Attributes:
        confined: the layers of its cage; None when it never got that far.
        end: how the job ended, as it says; None when it did not.
        code: its exit code, or minus a signal.
        starved: whether it was killed because memory was short.
        text: its last words from before it was confined, for a person.
    """

    confined: Confined | None
    end: Done | Failure | None
    code: int
    starved: bool
    text: str


def failed(failure: Failure, job: Job, *, is_confined: bool) -> UpdaterError:
    """Return what a failure means, in words that are found here."""
    if not is_confined:
        return TransientError(
            f"the bundle opener could not be confined: {os.strerror(failure.errno)}",
            means="no bundle is opened outside of its cage",
            code="cage_not_built",
        )
    if failure.code in _TRANSIENT:
        return disk(failure.code, job, failure.errno)
    known = codes.find(failure.code)
    meaning = known.meaning if known else "it is not what it should be"
    place = f" ({failure.module}, line {failure.line})" if failure.module else ""
    if job.files is not None and failure.entry < len(job.files):
        place = f": {job.files[failure.entry].path:.80}"
    kind = MalformedError if failure.code == "malformed" else RejectedError
    return kind(
        f"bundle {job.bundle_sha256[:12]}: {meaning}{place}",
        do=known.remedy if known else "",
        code=failure.code,
    )


def disk(code: str, job: Job, number: int) -> TransientError:
    """Return what it means that the disk refused."""
    if code == FULL_DISK:
        return TransientError(
            f"no space left for {job.destination}", do="free some space", code=code
        )
    why = os.strerror(number) if number else "it cannot be read or written"
    return TransientError(f"{job.destination}: {why}", do="look at the disk", code=code)


def _killed(*, starved: bool) -> TransientError:
    if starved:
        return TransientError(
            "the bundle opener was killed: out of memory",
            do=oom.CURE,
            code="out_of_memory",
        )
    return TransientError(
        "the bundle opener was killed",
        means="perhaps by a person; it is started again",
        code="worker_killed",
    )


def died(answer: Answer, job: Job) -> UpdaterError:
    """Return what the end of a worker without an answer means.

    Only a signal that contents can cause speaks against a bundle. Whoever ends with an
    exit code and no answer could not give it: the machine's trouble, which passes.
    """
    code = answer.code
    if code == -signal.SIGKILL:
        return _killed(starved=answer.starved)
    if code == -signal.SIGBUS and answer.confined is not None and job.old is not None:
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
            "the bundle takes too much CPU time to apply",
            code="cpu_limit",
            do="publish the release again",
        )
    if answer.confined is None:
        # It had not seen a byte of the bundle.
        line = answer.text.strip().rsplit("\n", 1)[-1]
        is_disk = (
            code in (_NOT_FLUSHED, UNHEARD, -signal.SIGBUS)
            or "OSError: [Errno " in answer.text
        )
        return TransientError(
            "the bundle opener ended before it opened one: "
            f"{line or f'exit code {code}':.200}",
            do="look at the disk, and at the installation of updaterd",
            code="disk_error" if is_disk else "cage_not_built",
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    if -code in _CRASHES:
        return MalformedError(
            f"the bundle opener crashed: {how}", code="worker_crashed"
        )
    return TransientError(
        f"the bundle opener ended without an answer: {how}",
        means="what it made is not used; it is tried again",
        do="look at the disk and at `dmesg`",
        code="disk_error" if code == -signal.SIGBUS else "no_answer",
    )
