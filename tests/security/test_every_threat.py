# SPDX-License-Identifier: Apache-2.0
"""The table of docs/threat-model.md names a test for every attack, and they exist."""

import re
from pathlib import Path

import pytest

from security.attacks import ATTACKS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "threat-model.md"


REMOTE, LOCAL = "\n## Attack by attack", "\n## The machine's own users"


def rows(heading: str = REMOTE) -> dict[str, list[str]]:
    """Return the attacks of a table, each with its tests."""
    section = DOCUMENT.read_text().split(heading, 1)[1].split("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and "`" in cells[2]:
            found[cells[0]] = re.findall(r"`([^`]+)`", cells[2])
    return found


def test_every_attack_has_tests_and_the_table_is_whole():
    """Twenty rows at least; none without a test."""
    assert len(rows()) >= 20
    assert all(rows().values())


@pytest.mark.parametrize("attack", rows(REMOTE) | rows(LOCAL))
def test_the_named_tests_exist(attack):
    """`module::test`, or `attacks::name` for an attack on the daemon's repository."""
    known = {each.name for each in ATTACKS}
    for name in (rows(REMOTE) | rows(LOCAL))[attack]:
        module, _, test = name.partition("::")
        if module == "attacks":
            assert test in known, name
            continue
        (path,) = ROOT.glob(f"tests/**/{module}.py")
        if test:
            begins = rf"^(async )?def {test}\("
            assert re.search(begins, path.read_text(), re.MULTILINE), name


def test_every_attack_is_in_the_table():
    """None is tested that the table does not know."""
    named = {name for names in rows().values() for name in names}
    assert {f"attacks::{each.name}" for each in ATTACKS} <= named
