"""docs/operations.md and the code tell the same events."""

import ast
import re
from pathlib import Path

REPO = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def logged() -> dict[str, set[str]]:
    """Return every event that the code logs under a literal name, with its levels."""
    found: dict[str, set[str]] = {"library_message": {"warning", "error"}}
    for path in (REPO / "updaterd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and node.args
                and isinstance(node.args[0], ast.Constant)
                and isinstance(node.args[0].value, str)
            ):
                found.setdefault(node.args[0].value, set()).add(node.func.attr)
    return found


def test_every_event_is_documented_and_every_documented_event_exists():
    """An operator's alert on an event must not rot, in either direction."""
    text = (REPO / "docs/operations.md").read_text()
    table = text.partition("### Log events")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", table, re.MULTILINE)
    documented = {name: set(levels.split(", ")) for name, levels in rows}
    assert logged() == documented


def test_events_have_stable_names():
    """snake_case, so that they can be matched and grouped."""
    for name in logged():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
