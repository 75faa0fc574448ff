# SPDX-License-Identifier: Apache-2.0
"""How a command ends: its exit code, and what it tells on stderr.

The command line and the daemon's own process (`python -m updaterd.daemon`) share it.
"""

import errno
import io
import os
import sys
from collections.abc import Callable

from updaterd.errors import BrokenError, UpdaterError

EXIT_ERROR = 1
_INTERRUPTED = 130  # 128 + SIGINT, as every shell says it
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM})
_ADVICE = {
    errno.ENOENT: "it is not there, or not any more: see who else moves or deletes "
    "what is there",
    **dict.fromkeys(
        _NOT_OURS, "run it as root, or as the user that the daemon runs as"
    ),
    errno.EROFS: "mount that file system writable, and look for why it is not (dmesg)",
    errno.ENOSPC: "free disk space",
}


def ended(work: Callable[[], int]) -> int:
    """Do the work of a command; return its exit code, whatever happens.

    Raises:
        Exception: a defect of ours, with its traceback.
    """
    _have_streams()
    try:
        code = work()
        sys.stdout.flush()  # here a full disk or a reader that left can still be told
    except UpdaterError as error:
        tell(error)
        return EXIT_ERROR
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # the reader of our output went away: `updaterd history | head`
        _settle_output()
        return EXIT_ERROR
    except Exception as error:
        if not _is_refusal(error):
            raise
        _settle_output()
        tell(_refused(error))
        return EXIT_ERROR
    return code


def _have_streams() -> None:
    """Make stdout and stderr take whatever is written to them.

    Started with a stream closed (`>&-`, some supervisors), the next file that is
    opened would get its number, and what is printed would go into it. And a terminal
    of another encoding shows a name it cannot spell escaped, not a traceback.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process lives
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def tell(error: UpdaterError) -> None:
    """Print on stderr what happened, what it means and what to do.

    In the journal it is one entry, an error with a field for each of these.
    """
    from updaterd import log  # noqa: PLC0415 - most commands succeed

    if log.stderr_is_journal():
        log.configure("journal")
        log.get().error(
            "command_failed",
            code=error.code,
            cause="; ".join((error.cause, *error.details)),
            meaning=error.means or None,
            remedy=error.do or None,
        )
        return
    from updaterd.core.text import printable  # noqa: PLC0415 - most commands succeed

    lines = [f"updaterd: {printable(error.cause)}"]
    lines += [f"  - {printable(detail)}" for detail in error.details]
    if error.means:
        lines.append(f"  this means: {printable(error.means)}")
    if error.do:
        lines.append(f"  what to do: {printable(error.do)}")
    sys.stderr.write("\n".join(lines) + "\n")


def _is_refusal(error: Exception) -> bool:
    """Tell the machine's own refusals (disk, database) from defects of ours."""
    # Not imported here: most commands need no database to say that they failed.
    sqlite3 = sys.modules.get("sqlite3")
    return isinstance(error, OSError) or (
        sqlite3 is not None and isinstance(error, sqlite3.Error)
    )


def _settle_output() -> None:
    """Write what is in the buffer; if that fails, it must not fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: Exception) -> UpdaterError:
    """Return a refusal as one of our errors."""
    from updaterd.files.places import refused_root  # noqa: PLC0415 - most commands succeed

    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, PermissionError) and number is None:
        number = errno.EACCES  # a library's own
    return BrokenError(
        f"the machine refused: {error}",
        means=""
        if number in _NOT_OURS
        else "what was begun is finished or undone by the next run",
        do=refused_root(number)
        or _ADVICE.get(
            number or 0, "look at free space (df), permissions, and the system's log"
        ),
        code="machine_refused",
    )
