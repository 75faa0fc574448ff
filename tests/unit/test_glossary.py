# SPDX-License-Identifier: Apache-2.0
"""docs/glossary.md: its words are used, and no others for the same things."""

import argparse
import re
from pathlib import Path

import pytest

from updaterd.cli import build_parser

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(
    r"^\| \*\*([\w ]+)\*\* \| (.+) \| (.+) \|$",
    (ROOT / "docs/glossary.md").read_text(),
    re.MULTILINE,
)


def _helps(parser, name="updaterd"):
    """Yield each command's name and help."""
    yield f"{name} --help", parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield from _helps(sub, f"{name} {word}")


def texts():
    """Return what people read, by its name: pages, and help, without names in code."""
    pages = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
    read = {
        p.name: p.read_text()
        for p in pages
        if p.name not in {"glossary.md", "CHANGELOG.md"}
    }
    read |= dict(_helps(build_parser()))
    return {
        name: re.sub(r"\s+", " ", re.sub(r"`[^`\n]*`|\b[A-Z_]+\b", " ", text)).lower()
        for name, text in read.items()
    }


TEXTS = texts()


def test_the_glossary_has_no_word_twice():
    words = [word for word, _, _ in ROWS]

    assert len(words) == len(set(words)) > 40


@pytest.mark.parametrize("word", [word for word, _, _ in ROWS])
def test_each_word_is_used(word):
    shape = re.compile(rf"\b{word[:-1]}(?:{word[-1]}|ies)", re.IGNORECASE)

    assert any(shape.search(text) for text in TEXTS.values())


@pytest.mark.parametrize(
    ("word", "other"),
    [(word, other) for word, _, rest in ROWS for other in rest.split(", ")],
)
def test_no_other_word_is_used_for_it(word, other):
    shape = re.compile(rf"\b{re.escape(other)}(?:s|es|ed|d|ing)?\b")
    users = [name for name, text in TEXTS.items() if shape.search(text)]

    assert [] == users, f'say "{word}"'
