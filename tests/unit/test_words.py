# SPDX-License-Identifier: Apache-2.0
"""Names are nouns and predicates: words that hold anything say nothing.

CONTRIBUTING.md says why; docs/glossary.md has the words of the field.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUT = frozenset([
    "said",
    "told",
    "found",
    "made",
    "one",
    "each",
    "some",
    "mine",
    "theirs",
    "ours",
    "left",
    "kept",
    "here",
    "there",
    "was",
    "what",
    "who",
    "given",
    "asked",
    "seen",
    "gone",
    "taken",
    "wanted",
    "then",
])


def _names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a piece of code gives to something."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.alias(asname=str(name)):
            yield name


def words_out(source: str) -> list[tuple[int, str]]:
    """Return line and name of each name in `source` that is a word that is out."""
    return sorted(
        (getattr(node, "lineno", 0), name)
        for node in ast.walk(ast.parse(source))
        for name in _names(node)
        if name.strip("_") in OUT
    )


@pytest.mark.parametrize("folder", ["updaterd", "packaging", "benchmarks"])
def test_no_name_is_a_word_that_says_nothing(folder):
    modules = sorted((ROOT / folder).rglob("*.py"))

    assert modules
    assert [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in modules
        for line, name in words_out(path.read_text("utf-8"))
    ] == []
    assert [path.name for path in modules if path.stem.strip("_") in OUT] == []


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "for each in (): pass",
        "def said(): pass",
        "def f(*, what): pass",
        "class a:\n    one: int",
        "self.left = 1",
        "import x as then",
        "try: pass\nexcept OSError as seen: pass",
        "match x:\n    case [here, *_]: pass",
        "(made := 1)",
        "_kept_ = 1",
    ],
)
def test_each_way_of_naming_is_looked_at(source):
    assert len(words_out(source)) == 1


def test_uses_and_words_within_names_are_let_be():
    assert words_out("print(found)\nmade_at = left_over = thereby = 1") == []
