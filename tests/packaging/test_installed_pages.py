# SPDX-License-Identifier: Apache-2.0
"""The pages of a package name each other as they lie there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/**/*.md")]
CODE = """
import sys
sys.path.insert(0, sys.argv[1])
import pages
print(pages.installed(sys.stdin.read()), end="")
"""


def installed(text):
    argv = [sys.executable, "-I", "-c", CODE, ROOT / "packaging"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def where(page):
    """Return where a page lies in the package, below /usr/share/doc/updaterd."""
    return page.relative_to(ROOT / "docs" if ROOT / "docs" in page.parents else ROOT)


@pytest.fixture(scope="module")
def texts():
    """Each page as it is installed, by its place there."""
    mark = "\n=====\n"
    together = installed(mark.join(page.read_text() for page in PAGES))
    return dict(zip(map(where, PAGES), together.split(mark), strict=True))


def test_no_page_is_named_as_it_lies_in_the_source(texts):
    for page, text in texts.items():
        assert [] == re.findall(r"\bdocs/[\w/.-]+\.md", text), page


def test_each_page_that_is_named_is_installed(texts):
    """But for those that only a clone of the source has, and a file in an example."""
    elsewhere = {"CONTRIBUTING.md", "RELEASE.md", "CHANGELOG.md", "LICENSE.md"}
    elsewhere |= {"notes.md", "notizen.md"}
    for page, text in texts.items():
        own = re.sub(r"https?://\S+", "", text)
        for name in re.findall(r"(?<![\w/.*-])[\w/.-]+\.md\b", own):
            place = (page.parent / name).as_posix()
            parts = [part for part in place.split("/") if part != "."]
            while ".." in parts:
                at = parts.index("..")
                del parts[at - 1 : at + 1]
            known = {Path(*parts), Path(name)} & set(texts)
            assert known or name in elsewhere or name.startswith("tests/"), (page, name)
