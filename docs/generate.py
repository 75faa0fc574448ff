"""Put what the code says into the documentation: python docs/generate.py.

The tests call `stale` (tests/unit/test_docs.py), so a page that was not made again
after a change fails them.
"""

import sys
from pathlib import Path

from updaterd.core import lifecycle

PAGE = Path(__file__).with_name("reliability.md")
BEGIN, END = "<!-- lifecycle -->\n```mermaid\n", "```\n"


def render(text: str) -> str:
    """Return the page with its diagram made from the table of transitions."""
    before, rest = text.split(BEGIN)
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}{lifecycle.diagram()}{END}{after}"


def stale() -> bool:
    """Tell whether the page must be made again."""
    text = PAGE.read_text()
    return render(text) != text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
    sys.exit(0)
