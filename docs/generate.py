# SPDX-License-Identifier: Apache-2.0
"""Put what the code says into the documentation: python docs/generate.py.

The tests call `stale` (tests/unit/test_docs.py), so a page that was not made again
after a change fails them.
"""

import sys
from pathlib import Path

from updaterd.confine import seccomp
from updaterd.core import codes, lifecycle

HERE = Path(__file__).parent
DIAGRAM = ("reliability.md", "<!-- lifecycle -->\n```mermaid\n", "```\n")
CALLS = ("threat-model.md", "<!-- calls -->\n", "<!-- end of calls -->\n")
CODES = ("operations.md", "<!-- codes -->\n", "<!-- end of codes -->\n")


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
    """Return the system calls that the process that opens bundles may make."""
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


PARTS = {DIAGRAM: lifecycle.diagram, CALLS: call_table, CODES: code_table}


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
