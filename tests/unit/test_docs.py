# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does."""

import argparse
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import updaterd
from updaterd.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(ROOT.glob("docs/**/*.md"))


def test_generated_parts_are_what_the_code_says():
    """The lifecycle's diagram, the table of codes."""
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
        r"(?<![\w/.-])((?:docs|tests|benchmarks|systemd|packaging|updaterd)/[\w./-]*\w)",
        page.read_text(),
    )
    missing = [name for name in named if not (ROOT / name).exists()]

    assert not missing


def _anchors(page):
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *DOCS], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_of_pages_lead_somewhere(page):
    """To a file that exists, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        other = page.parent / file if file else page
        assert other.exists(), target
        assert not anchor or anchor in _anchors(other), target


def test_the_site_has_every_page():
    """Each is reached from the navigation of docs/index.md, once."""
    listed = []
    for index in (ROOT / "docs/index.md", ROOT / "docs/decisions/index.md"):
        for tree in re.findall(r"```{toctree}\n(.*?)```", index.read_text(), re.DOTALL):
            for entry in tree.splitlines():
                if entry and not entry.startswith(":"):
                    listed += index.parent.glob(f"{entry}.md")
    here = [page for page in DOCS if page != ROOT / "docs/index.md"]

    assert here == sorted(listed)


def test_the_library_that_the_site_documents_exists():
    """docs/api.md is made from these names."""
    names = re.findall(
        r"^\.\. auto\w+:: ([\w.]+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE
    )

    assert names
    for name in names:
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name


@pytest.mark.parametrize("page", [ROOT / "README.md", *ROOT.glob("docs/*.md")])
def test_commands_that_pages_show_exist(page):
    known = {command.name for command in COMMANDS}
    shown = set(
        re.findall(r"^ {4}(?:sudo )?updaterd ([a-z]+)", page.read_text(), re.MULTILINE)
    )

    assert shown <= known


def _commands(parser, path=()):
    """Yield every command's words and its parser."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from _commands(sub, (*path, name))


@pytest.mark.parametrize("page", [ROOT / "README.md", *ROOT.glob("docs/*.md")])
def test_subcommands_and_options_that_pages_show_exist(page):
    """`updaterd release keys rotate --uri`: each word of it, on that very command."""
    commands = dict(_commands(build_parser()))
    groups = {path[:-1] for path in commands if path}
    lines = re.findall(r"`updaterd ([^`]+)`|\bupdaterd (.*)", page.read_text())
    wrong = []
    for shown in (one or other for one, other in lines):
        words = re.split(r"  +|[`#;&|]|\)", shown)[0].split()
        path = ()
        while words and (*path, words[0]) in commands:
            path = (*path, words.pop(0))
        if not path:
            continue
        known = commands[path]._option_string_actions
        used = [word.strip("[],.").split("=")[0] for word in words]
        if path in groups and used and not used[0].startswith("-"):
            wrong.append(shown)
        wrong += [shown for word in used if word.startswith("--") and word not in known]
    assert not wrong


def test_the_changelog_has_one_section_for_each_version():
    """A bad merge brings old sections back; a first version fixed nothing before it."""
    text = (ROOT / "CHANGELOG.md").read_text()
    _, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    titles = [section.partition("\n")[0] for section in sections]
    advice = "after a merge: `git checkout main CHANGELOG.md`, add your lines again"
    dated = [title for title in titles if title != "Unreleased"]

    assert titles[0] == "Unreleased", advice
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", t) for t in dated)
    assert len(titles) == len(set(titles)), advice
    assert dated[0].startswith(f"{updaterd.__version__} - ")
    for section in sections:
        parts = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert len(parts) == len(set(parts)), advice
    assert "### Fixed" not in sections[-1], advice


def test_messages_that_the_publishers_guide_quotes_are_those_of_the_commands():
    """What is replaced in a message is `...` or a number `N` on the page."""
    folders = ("release", "cli/release", "server")
    source = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        for folder in folders
        for path in (ROOT / "updaterd" / folder).rglob("*.py")
    )
    page = (ROOT / "docs/publisher.md").read_text()
    table = page.split("| message | what happened | do |")[1].split("\n\n")[0]
    quotes = re.findall(
        r"`([^`]+)`", "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE))
    )
    pieces = [
        piece.strip()
        for quote in quotes
        for piece in re.split(r"\.\.\.|\bN\b|linux-|\bstatus$", quote)
    ]

    assert len(quotes) > 15
    assert [] == [piece for piece in pieces if piece not in source]


def test_each_argument_says_what_it_means():
    """In `--help`, and so on the page that is made of it."""
    page = (ROOT / "docs/commands.md").read_text()

    assert [] == re.findall(r"^\| `.*` \|\s*\|$", page, re.MULTILINE)
