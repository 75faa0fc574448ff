# SPDX-License-Identifier: Apache-2.0
"""Every code has one home: whose fault it is, what it means, what to do."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from updaterd.core import codes
from updaterd.core.codes import Kind

PACKAGE = Path(__file__).resolve().parents[3] / "updaterd"
HOME = PACKAGE / "core/codes"
# Calls that take a code by its place, and which place that is.
PLACES = {"note": 0, "Note": 1, "Verdict": 2, "Refusal": 1, "problem": 1, "_answer": 1,
          "_unreachable": 2, "Fault": 1}  # fmt: skip


def _literals(node: ast.AST) -> Iterator[str]:
    """Yield the strings that an expression may be, `http_NNN` for a made one."""
    match node:
        case ast.Constant(value=str(text)) if text:
            yield text
        case ast.IfExp():
            yield from _literals(node.body)
            yield from _literals(node.orelse)
        case ast.JoinedStr(values=[ast.Constant(value="http_"), *_]):
            yield "http_NNN"


def _codes_of_call(node: ast.Call) -> Iterator[str]:
    """Yield the codes that a call is given, by name or by place."""
    for word in node.keywords:
        if word.arg == "code":
            yield from _literals(word.value)
    name = getattr(node.func, "attr", None) or getattr(node.func, "id", "")
    place = PLACES.get(name)
    if place is not None and len(node.args) > place:
        yield from _literals(node.args[place])


def _codes_of(tree: ast.AST) -> Iterator[str]:
    """Yield the codes that a module gives to errors, notes, answers and decisions."""
    for node in ast.walk(tree):
        match node:
            case ast.Call():
                yield from _codes_of_call(node)
            case ast.Assign(targets=[ast.Name(id="code")]):
                yield from _literals(node.value)
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])],
                value=ast.Tuple(elts=[first, *_]),
            ):
                yield from _literals(first)
            case ast.FunctionDef() if node.name.startswith("_code"):
                for part in ast.walk(node):
                    if isinstance(part, ast.Return) and part.value is not None:
                        yield from _literals(part.value)


@functools.cache
def _modules() -> dict[Path, ast.AST]:
    return {
        path: ast.parse(path.read_text())
        for path in PACKAGE.rglob("*.py")
        if path.parent != HOME
    }


def test_every_code_that_is_raised_is_registered():
    raised = {
        (code, str(path.relative_to(PACKAGE)))
        for path, tree in _modules().items()
        for code in _codes_of(tree)
    }

    assert len(raised) > 150, "the search finds codes"
    assert {pair for pair in raised if pair[0] not in codes.table()} == set()


def test_no_registered_code_is_unused():
    strings: set[str] = set()
    for tree in _modules().values():
        for node in ast.walk(tree):
            strings |= set(_literals(node))
    prefixed = {"too_many_of_token", "too_many_of_address"}  # server/streams/streams.py

    assert set(codes.table()) - strings - prefixed == set()


def test_every_row_is_whole():
    """A name scripts can match, a meaning, and something to do."""
    assert [
        name
        for name, row in codes.table().items()
        if not re.fullmatch(r"[a-z][a-z_]*(_NNN|_204)?", name)
        or not row.meaning
        or not row.remedy
    ] == []


def test_no_code_stands_twice():
    rows = [
        line.partition(":")[0]
        for text in codes.ROWS.values()
        for line in text.splitlines()
        if line and not line.startswith(" ")
    ]

    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("kind", Kind)
def test_only_the_releases_own_fault_blocks_it(kind):
    found = [name for name, row in codes.table().items() if row.kind is kind]

    assert found
    assert all(codes.blocks(name) == (kind is Kind.RELEASE) for name in found)


def test_answers_of_servers_are_one_row():
    assert codes.find("http_503") == codes.table()["http_NNN"]
    assert codes.find("http_204").kind is Kind.NOBODY


def test_code_of_another_version_blocks():
    """What an older or newer updaterd journalled stays blocked."""
    assert codes.find("of_another_version") is None
    assert codes.blocks("of_another_version")
