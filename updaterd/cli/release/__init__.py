# SPDX-License-Identifier: Apache-2.0
"""`updaterd release`: make, sign, publish and steer releases."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release import (
    add,
    appstream,
    apt_repo,
    build,
    diff,
    init,
    keys,
    kit,
    publish,
    push,
    show,
    sign,
    status,
    subject,
)
from updaterd.cli.release.steering import (
    approve,
    audit,
    pause,
    promote,
    rollout,
    watch,
    yank,
)
from updaterd.cli.release.upkeep import gc, recover, refresh, sync, verify

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from updaterd.errors import TransientError

_MODULES: "Iterable[ModuleType]" = (
    init,
    push,
    add,
    build,
    sign,
    publish,
    promote,
    rollout,
    pause,
    yank,
    approve,
    watch,
    audit,
    status,
    show,
    diff,
    appstream,
    kit,
    apt_repo,
    subject,
    refresh,
    sync,
    verify,
    gc,
    recover,
    keys,
)

_PUBLISHING = frozenset({
    *("init", "push", "add", "publish", "promote", "rollout", "pause", "resume"),
    *("yank", "watch", "refresh", "sync", "recover", "keys"),
})
"""Commands that machines may see something of: run again, they finish it."""

EPILOG = """\
a first release:
  updaterd release init acme-repo --profile prod --product acme --channel stable
  updaterd release push build/acme --repo acme-repo --product acme \\
      --version 1.0.0 --channel stable --feed https://updates.example.com/v1/events

Serve acme-repo/public as /repo/; give machines acme-repo/public/metadata/1.root.json.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    commands = parser.add_subparsers(
        dest="release_command", metavar="COMMAND", required=True
    )
    for module in _MODULES:
        module.configure(commands)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    return (
        _answered(arguments) if getattr(arguments, "json", False) else _run(arguments)
    )


def _run(arguments: argparse.Namespace) -> int:
    """Do it; what the disk refuses is an error as all others are.

    Raises:
        BrokenPipeError: whoever read the output has left.
        _refused: the disk refused; nothing is half-published.
    """
    try:
        code: int = arguments.release_run(arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        command: str = getattr(arguments, "release_command", "")
        raise _refused(error, publishes=command in _PUBLISHING) from error
    return code


def _refused(error: OSError, *, publishes: bool) -> "TransientError":
    from updaterd.errors import TransientError

    if publishes:
        return TransientError(
            f"the disk refused: {error}",
            means="machines see the whole publication or nothing of it",
            do="repair the disk, then run the same command again: it finishes the "
            "publication",
            code="disk",
        )
    return TransientError(
        f"the disk refused: {error}",
        means="the command stopped there; it publishes nothing",
        do="see to that path, then run the same command again",
        code="disk",
    )


def _answered(arguments: argparse.Namespace) -> int:
    """Do it; print one object for programs instead of what is for people.

    Raises:
        UpdaterError: as the command; the object says it, too.
    """
    import io
    import json
    from contextlib import redirect_stdout

    from updaterd.errors import UpdaterError

    fault: dict[str, object] = {}
    try:
        with redirect_stdout(io.StringIO()):
            return _run(arguments)
    except UpdaterError as error:
        fields = {"code": error.code, "what": error.cause}
        fault = {"error": {**fields, "means": error.means, "do": error.do}}
        raise
    finally:
        print(json.dumps({"schema": 1, **arguments.answer, **fault}))
