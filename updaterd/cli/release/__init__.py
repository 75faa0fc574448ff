# SPDX-License-Identifier: Apache-2.0
"""`updaterd release`: make, sign, publish and steer releases."""

import argparse
from typing import TYPE_CHECKING

from updaterd.cli.release import (
    add,
    appstream,
    build,
    diff,
    gc,
    init,
    keys,
    publish,
    push,
    recover,
    refresh,
    show,
    sign,
    status,
    subject,
    sync,
    verify,
)
from updaterd.cli.release.steering import pause, promote, rollout, yank

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

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
    status,
    show,
    diff,
    appstream,
    subject,
    refresh,
    sync,
    verify,
    gc,
    recover,
    keys,
)

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
    """Do it.

    Raises:
        TransientError: the disk refused; nothing is half-published.
        BrokenPipeError: whoever read the output has left.
    """
    try:
        return (
            _answered(arguments)
            if getattr(arguments, "json", False)
            else _run(arguments)
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        from updaterd.errors import TransientError

        raise TransientError(
            f"the disk refused: {error}",
            means="machines see the whole publication or nothing of it",
            do="repair the disk, then run the same command again: it finishes the "
            "publication",
            code="disk",
        ) from error


def _run(arguments: argparse.Namespace) -> int:
    code: int = arguments.release_run(arguments)
    return code


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
