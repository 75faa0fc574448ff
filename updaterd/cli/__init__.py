# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a command, imported only when it is called.

A command module has `configure(parser)`, which declares its arguments, and
`run(arguments) -> int`, which does the work and returns the exit code. Neither its
import nor `configure` may import anything heavy: `updaterd status` starts fast.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from updaterd import __version__
from updaterd.core.dataclass import dataclass
from updaterd.exits import EXIT_ERROR as EXIT_ERROR  # one of ours
from updaterd.exits import ended
from updaterd.system.orphans import hand_down

EXIT_CURRENT = 0
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 4
EXIT_PENDING = 10
EXIT_DEGRADED = 20
EXIT_ROLLED_BACK = 30

EXIT_CODES = """\
exit codes:
   0  current: nothing to do
   1  an error; stderr names it
   2  wrong usage
   4  the daemon is not running
  10  an update waits, or a hold stops it
  20  degraded: feed down, metadata expired or expiring, a release refused here
  30  what a channel offers was rolled back here, by health check or by hand
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, whom it is for, and what it does in a line.

    Attributes:
        name: as it is typed.
        audience: whom it is for: on the machine, a publisher, an operator.
        help: what it does.
        room: the package of `updaterd.cli` that has its module; empty: that itself.
        state: "reads" or "writes" a daemon's state: when root types it, the packaged
            command (packaging/private/updaterd) has it done by the state's owner, and
            what only reads by the packaged release.
    """

    name: str
    audience: str
    help: str
    state: str = ""
    room: str = ""

    def module(self) -> ModuleType:
        """Import the module that does the work."""
        room = f"{self.room}." if self.room else ""
        name = self.name.replace("-", "_")
        return importlib.import_module(f"updaterd.cli.{room}{name}")


COMMANDS = (
    Command(
        "run",
        "machine",
        "run the daemon: subscribe to the feed, keep up to date",
        "writes",
    ),
    Command(
        "status",
        "machine",
        "show what is installed, what waits and what is wrong",
        "reads",
    ),
    Command(
        "why",
        "machine",
        "say in three lines why a product is updated now, or is not",
        "reads",
        "desktop",
    ),
    Command(
        "check", "machine", "look for updates now, without installing them", "writes"
    ),
    Command("update", "machine", "bring products to their target release", "writes"),
    Command("rollback", "machine", "return to the previous release, offline", "writes"),
    Command(
        "remove", "machine", "take a product off this machine, to stay away", "writes"
    ),
    Command("hold", "machine", "install nothing until further notice", "writes"),
    Command("unhold", "machine", "end a hold", "writes"),
    Command("history", "machine", "list what was installed, when and why", "reads"),
    Command(
        "reports",
        "machine",
        "show what this machine tells about its updates, and to whom",
        "writes",
        "reporting",
    ),
    Command(
        "enroll",
        "machine",
        "make this machine known to a closed server, by a one-time code",
        "writes",
        "reporting",
    ),
    Command(
        "verify", "machine", "compare the installed tree with its manifest", "writes"
    ),
    Command("events", "machine", "print a feed's events, one JSON line each"),
    Command("config", "machine", "check the configuration"),
    Command(
        "report",
        "machine",
        "write a file for who helps you, without secrets",
        "reads",
        "desktop",
    ),
    Command(
        "launch",
        "machine",
        "activate what is ready, then start the application",
        "",
        "desktop",
    ),
    Command(
        "session",
        "machine",
        "tell a person on his desktop what is ready",
        "",
        "desktop",
    ),
    Command(
        "api",
        "machine",
        "answer applications, which ask over Varlink",
        "writes",
        "desktop",
    ),
    Command("kit", "machine", "install or take away what a kit is for"),
    Command("self-test", "machine", "test whether this updaterd works on this machine"),
    Command("release", "release", "make, sign, publish and steer releases"),
    Command("bundle", "release", "look into a bundle, or make its tree, by hand"),
    Command("serve", "operator", "run the feed server"),
    Command("token", "operator", "create, list and revoke publishing tokens"),
    Command(
        "demo",
        "everyone",
        "show on this machine, in about a minute, how updaterd works",
    ),
)

_AUDIENCES = {
    "machine": "on the machine",
    "release": "for publishers",
    "operator": "for operators of a feed",
    "everyone": "for everyone",
}


def _overview() -> str:
    lines = []
    for audience, title in _AUDIENCES.items():
        lines.append(f"\n{title}:")
        lines.extend(
            f"  {command.name:<10} {command.help}"
            for command in COMMANDS
            if command.audience == audience
        )
    return "\n".join(lines)


class _Parser(argparse.ArgumentParser):
    """Names the command that does not know an argument, and shows its usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; unlike argparse's own, which leaves it to the outermost parser."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of every command, or of `only` one."""
    parser = _Parser(
        prog="updaterd",
        description="Keeps applications up to date: pushed, signed, atomic.\n"
        + _overview(),
        epilog=f"`updaterd COMMAND --help` explains each.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="updaterd [--version] COMMAND [ARGUMENT ...]",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        help=argparse.SUPPRESS,
        prog="updaterd",
    )
    for command in COMMANDS:
        if only not in (None, command.name):
            continue  # the parsers of all commands take 6 ms, that of one 1 ms
        sub = commands.add_parser(
            command.name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module = command.module()
        module.configure(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    named = {command.name for command in COMMANDS}
    only = next((word for word in words if not word.startswith("-")), None)
    parser = build_parser(only if only in named else None)
    if not words:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    arguments = parser.parse_args(words)
    hand_down()
    return ended(lambda: arguments.run(arguments))
