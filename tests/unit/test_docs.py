"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

from updaterd.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def test_lifecycle_diagram_is_the_table():
    spec = importlib.util.spec_from_file_location("gen", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    assert not generate.stale(), "run: python docs/generate.py"


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_files_that_pages_name_exist(page):
    """`docs/x.md`, `tests/...`, `benchmarks/...`, `updaterd/...`: no dead pointers."""
    named = re.findall(
        r"`((?:docs|tests|benchmarks|systemd|packaging|updaterd)/[\w./-]+\w)[`:]",
        page.read_text(),
    )
    missing = [name for name in named if not (ROOT / name).exists()]

    assert not missing


@pytest.mark.parametrize("page", [ROOT / "README.md", *ROOT.glob("docs/*.md")])
def test_commands_that_pages_show_exist(page):
    known = {command.name for command in COMMANDS}
    shown = set(
        re.findall(r"^ {4}(?:sudo )?updaterd ([a-z]+)", page.read_text(), re.MULTILINE)
    )

    assert shown <= known
