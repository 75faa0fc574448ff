# SPDX-License-Identifier: Apache-2.0
"""Put what the code says into the documentation: python docs/generate.py.

The tests call `stale` (tests/unit/test_docs.py), so a page that was not made again
after a change fails them.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from updaterd import cli
from updaterd.artifact.worker.confine import seccomp
from updaterd.core import codes, lifecycle

HERE = Path(__file__).parent
ROOT = HERE.parent
DIAGRAM = ("reliability.md", "<!-- lifecycle -->\n```mermaid\n", "```\n")
CALLS = ("threat-model.md", "<!-- calls -->\n", "<!-- end of calls -->\n")
STATUS = ("formats.md", "<!-- status -->\n", "<!-- end of status -->\n")
CODES = ("codes.md", "<!-- codes -->\n", "<!-- end of codes -->\n")
COMMANDS = ("commands.md", "<!-- commands -->\n", "<!-- end of commands -->\n")


def code_table() -> str:
    """Return every code, its meaning and remedy, one table for each kind."""
    parts = []
    for kind, about in codes.ABOUT.items():
        rows = sorted(
            (name, row) for name, row in codes.table().items() if row.kind is kind
        )
        parts.append(f"\n**{kind.capitalize()}.** {about}.\n\n")
        parts.append("| code | means | do |\n|---|---|---|\n")
        parts += [
            f"| `{name}` | {row.meaning} | {row.remedy} |\n" for name, row in rows
        ]
    return "".join([*parts, "\n"])


def call_table() -> str:
    """Return the system calls that the opener may make."""
    free = sorted(f"`{row[0]}`" for row in seccomp.ALLOWED if row[3] == seccomp.ANY)
    rows = [
        f"| `{name}` | {seccomp.CONDITIONS[condition]} |\n"
        for name, _, _, condition in seccomp.ALLOWED
        if condition != seccomp.ANY
    ]
    return "".join([
        "| call | on the condition |\n|---|---|\n",
        *rows,
        f"| {', '.join(free)} | - |\n",
    ])


def _parsers(
    parser: argparse.ArgumentParser, name: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command's name and parser, subcommands after their command."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield from _parsers(sub, f"{name} {word}")


def _synopsis(action: argparse.Action) -> str:
    """Return an argument as it is typed: `--config FILE`, `PRODUCT`."""
    words = action.metavar or "|".join(action.choices or [action.dest.upper()])
    if not action.option_strings:
        return str(words)
    value = "" if action.nargs == 0 else f" {words}"
    return ", ".join(action.option_strings) + value


def _tables(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return a command's arguments, a table for each group of them.

    What argparse calls "positional arguments" and "options" is one group, "".
    """
    formatter = argparse.HelpFormatter(parser.prog)
    tables: dict[str, str] = {}
    for group in parser._action_groups:
        own = group in (parser._positionals, parser._optionals)
        for action in group._group_actions:
            if (
                isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
                or action.help is argparse.SUPPRESS
            ):
                continue
            word = _synopsis(action).replace("|", "\\|")
            text = formatter._expand_help(action) if action.help else ""
            text = text.replace("<", "&lt;").replace("|", "\\|")
            title = "" if own else str(group.title)
            begun = tables.get(title, "| argument | means |\n|---|---|\n")
            tables[title] = f"{begun}| `{word}` | {text} |\n"
    return tables


def command_pages() -> str:
    """Return every command with its arguments; groups that several share come last."""
    parsers = list(_parsers(cli.build_parser(), "updaterd"))[1:]
    tables = {name: _tables(parser) for name, parser in parsers}
    often = Counter(group for of in tables.values() for group in of.items())
    shared = [group for group, times in often.items() if group[0] and times > 1]
    parts = []
    for name, parser in parsers:
        parts.append(f"\n## {name}\n\n{(parser.description or '').strip()}\n")
        groups = tables[name].items()
        parts += [f"\n{group[1]}" for group in groups if group not in shared]
        also = [f'"{group[0]}"' for group in groups if group in shared]
        if also:
            parts.append(f"\nAnd the arguments below: {', '.join(also)}.\n")
        more = (parser.epilog or "").replace(cli.EXIT_CODES, "").strip("\n")
        if more:
            parts.append(f"\n```text\n{more}\n```\n")
    parts += [f"\n## Shared: {title}\n\n{table}" for title, table in shared]
    return "".join([*parts, "\n"])


def status_table() -> str:
    """Return every member of the status document, by its path."""
    schema = json.loads((ROOT / "updaterd/schemas/status.json").read_text("utf-8"))
    rows: list[str] = []

    def add(path: str, part: dict[str, Any]) -> None:
        for name, member in part.get("properties", {}).items():
            kind, inner = member["type"], f"{path}{name}"
            kinds = kind if isinstance(kind, str) else " or ".join(kind)
            rows.append(f"| `{inner}` | {kinds} | {member['description']} |\n")
            add(f"{inner}.", member)
            add(f"{inner}[].", member.get("items", {}))

    add("", schema)
    return "".join(["| member | type | what it says |\n|---|---|---|\n", *rows])


PARTS = {
    STATUS: status_table,
    DIAGRAM: lifecycle.diagram,
    CALLS: call_table,
    CODES: code_table,
    COMMANDS: command_pages,
}


def render(text: str, begin: str, end: str, part: str) -> str:
    """Return a page with the part between two marks made anew."""
    before, rest = text.split(begin)
    after = rest.split(end, 1)[1]
    return f"{before}{begin}{part}{end}{after}"


def pages() -> dict[Path, str]:
    """Return the pages with what the code says, as they should be."""
    return {
        HERE / name: render((HERE / name).read_text(), begin, end, part())
        for (name, begin, end), part in PARTS.items()
    }


def stale() -> bool:
    """Tell whether a page must be made again."""
    return any(path.read_text() != text for path, text in pages().items())


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
    sys.exit(0)
