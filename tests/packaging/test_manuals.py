# SPDX-License-Identifier: Apache-2.0
"""updaterd.toml(5): what docs/configuration.md says, of every key there is."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.tools import need

from updaterd.core import settings
from updaterd.core.units import parse_bytes, parse_duration
from updaterd.errors import MalformedError

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs/configuration.md"
ROFF = """
import sys
sys.path.insert(0, sys.argv[1])
import pages
page = sys.stdin.read()
print(pages.head("updaterd.toml", 5, "x", ("2026-11-29", "1")) + pages.body(page))
"""
# what is spelt otherwise in TOML, or is no key of an owner's
SPELT = {"max_deferral_s": "max_deferral"}
INNER = {"network", "name", "health", "hooks", "token_file"}  # `enroll` writes that
TABLES = (
    ("feed.", settings.Feed),
    ("feed.", settings.Network),
    ("trust.", settings.Trust),
    ("trust.", settings.Network),
    ("download.", settings.Download),
    ("schedule.", settings.Schedule),
    ("products.NAME.", settings.Product),
    ("products.NAME.health.", settings.Health),
    ("products.NAME.hooks.", settings.Hooks),
)


def roff(page: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ROFF, REPO / "packaging"],
        input=page,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def shown(text: str, tmp_path: Path) -> str:
    """Return the page as `man` shows it, which must have no complaint."""
    file = tmp_path / "page.5"
    file.write_text(text)
    done = subprocess.run(
        [need("groff"), "-man", "-ww", "-Tascii", "-P-c", "-P-b", "-P-u", file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout


def keys() -> dict[str, object]:
    """Return every key that an owner may set with its default."""
    return {
        prefix + SPELT.get(field.name, field.name): field.default
        for prefix, struct in TABLES
        for field in dataclasses.fields(struct)
        if field.name not in INNER
    }


def rows() -> dict[str, str]:
    """Return the page's keys and defaults, several of a row apart."""
    documented = {}
    for line in PAGE.read_text().splitlines():
        if match := re.match(r"\| (`[^|]+`) \| ([^|]+) \|", line):
            names = re.findall(r"`([\w.]+)`", match[1])
            defaults = match[2].split(", ") if len(names) > 1 else [match[2]]
            documented |= dict(zip(names, defaults * len(names), strict=False))
    return documented


def value(text: str) -> object:
    """Return a documented default as the settings have it."""
    word = text.strip('`"')
    if word in {"required", "none", "no limit", "any time"}:
        return None
    for read in (float, parse_duration, parse_bytes):
        try:
            return read(word)
        except (ValueError, MalformedError):
            continue
    return word


@pytest.mark.parametrize("key", keys())
def test_each_key_is_documented_with_its_default(key):
    """A new key is in the table of docs/configuration.md, and so in the man page."""
    documented = rows()
    default = keys()[key]
    bare = default in {dataclasses.MISSING, None, ()}

    assert key in documented, f"{PAGE.name}: a row for `{key}`"
    assert value(documented[key]) == (None if bare else default)


def test_the_man_page_has_each_key_and_nothing_that_roff_minds(tmp_path):
    text = re.sub(r"\s+", " ", shown(roff(PAGE.read_text()), tmp_path))
    for key in keys():
        assert key in text


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("`.hidden` starts the line", ".hidden starts the line"),
        ("'quoted' starts the line", "'quoted' starts the line"),
        (r"a \n that is no escape", r"a \n that is no escape"),
        ("**see** [codes](codes.md)", "see codes (codes.md)"),
        ("| a | b | c |\n|---|---|---|\n| `x` | `y\\|z` | w |", "x b: y|z c: w"),
        ("    updaterd run\n    .x", "updaterd run .x"),
        ("```sh\nls -l\n\n.y\n```", "ls -l .y"),
        ("- one\n  more\n- `two`", "- one more - two"),
        ("<!-- calls -->\nafter a mark", "after a mark"),
    ],
)
def test_what_a_page_says_is_what_man_shows(tmp_path, markdown, expected):
    """No line is lost because it looks like a request, no bar splits a cell."""
    text = re.sub(r"\s+", " ", shown(roff(f"# T\n\n{markdown}\n"), tmp_path))
    middle = text.partition("DESCRIPTION ")[2].partition(" SEE ALSO")[0]

    assert expected == middle
