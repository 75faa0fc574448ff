# SPDX-License-Identifier: Apache-2.0
"""The documentation and the code tell the same events, settings and codes."""

import ast
import re
from dataclasses import fields
from pathlib import Path

from updaterd.core.settings import Health

REPO = Path(__file__).parents[2]
# what an event says of itself, or put right by itself
NOT_WRONG = {"event_quarantined", "proxy_ignored", "folder_made_again"}
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
    text = (REPO / "docs/log-events.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.MULTILINE)
    documented = {name: set(levels.split(", ")) for name, levels in rows}
    assert logged() == documented


def test_events_have_stable_names():
    """snake_case, so that they can be matched and grouped."""
    for name in logged():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)


def table(heading, page="owner.md"):
    """Return the first column of the table after a sentence, a code each."""
    text = (REPO / "docs" / page).read_text()
    rows = text.partition(heading)[2].lstrip().partition("\n\n| ")[2]
    first = [
        line.split("|")[1] for line in ("| " + rows.partition("\n\n")[0]).split("\n")
    ]
    return {code for cell in first for code in re.findall(r"`([\w.]+)`", cell)}


def test_every_setting_is_documented():
    """And none that is not read: the page is what an owner has at 3 am."""
    source = (REPO / "updaterd/config/tables.py").read_text()
    read = set(
        re.findall(r'\.(?:text|path|words|seconds|whole|flag|table)\("(\w+)"', source)
    )
    read |= {key.name for key in fields(Health)}
    page = (REPO / "docs/configuration.md").read_text()
    named = set(re.findall(r"`(?:\w+\.)*(\w+)`", page))
    tables = {"feed", "trust", "download", "schedule", "products", "health", "hooks",
              "reports", "require_attestation", "enrolment"}  # fmt: skip
    assert read - tables <= named
    keys = {
        row.rpartition(".")[2]
        for row in table("Durations are seconds", "configuration.md")
    }
    assert keys <= read | {"max_rate", "min_free"}


def test_every_decision_of_the_planner_is_documented():
    """`status` prints the code; the page says what it means."""
    deciding = ("planner", "pacing", "fitting")
    source = "".join((REPO / f"updaterd/core/{n}.py").read_text() for n in deciding)
    codes = set(re.findall(r'code(?:, reason)? ?= ?"(\w+)"', source))
    for path in (REPO / "updaterd").rglob("*.py"):
        codes |= set(re.findall(r'\bdecision="(\w+)"', path.read_text()))
    assert codes == table("**Why nothing is installed**")


def test_every_fault_of_the_feed_is_documented():
    """As `FeedError` lists them, and the limit of a stream."""
    from updaterd.feed.failure import FeedError

    listed = FeedError.__doc__.partition("one of:")[2].replace(".", "").split(",")
    codes = {code.strip() for code in listed}
    assert codes | {"stream_limit"} == table("**Why nothing is heard**")


def test_every_warning_and_error_of_the_daemon_says_what_why_and_what_to_do():
    """`code`, `cause` and `remedy` are fields: an alert needs no second look."""
    without = []
    for path in (REPO / "updaterd/daemon").glob("*.py"):
        bound = "bind(" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"warning", "error"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                continue
            spread = any(
                word.arg is None and "trouble(" in ast.unparse(word.value)
                for word in node.keywords
            )
            named = {"code", "cause", "remedy"} <= {word.arg for word in node.keywords}
            if not (spread or named or bound) and node.args[0].value not in NOT_WRONG:
                without.append((path.name, node.args[0].value))
    assert [] == without
