# SPDX-License-Identifier: Apache-2.0
"""A kind of bundle is named in one place, and offered to nobody who cannot read it."""

import re
from pathlib import Path

import pytest

from updaterd.core import bundle_kinds
from updaterd.core.bundle_kinds import KINDS
from updaterd.core.routes import CODECS, codecs_since

REPO = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_module_spells_a_kind(kind):
    """One that was missed would make bundles that nobody reads, or read none."""
    home = Path(bundle_kinds.__file__)
    spelt = [
        str(path)
        for path in home.parents[1].rglob("*.py")
        if path != home and re.search(rf"[\"']{kind}", path.read_text())
    ]
    assert not spelt


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_in_the_formats_and_among_the_codecs(kind):
    assert f"`{kind}" in (REPO / "docs/formats.md").read_text()
    assert any(name.split("+")[0] == kind for name in CODECS)


def test_machines_of_every_version_read_what_the_first_read():
    assert codecs_since("0.0.1") == codecs_since("0.1.0") <= codecs_since("999")
    assert codecs_since("999") == CODECS


def test_a_later_kind_is_not_offered_to_earlier_machines():
    """`min_updater` of a release says who may come; all of them must read it."""
    kinds = {**KINDS, "delta2": "0.5.0"}

    assert "delta2+xz" not in codecs_since("0.4.9", kinds)
    assert "delta2+xz" in codecs_since("0.5.0", kinds)
    assert "delta1+xz" in codecs_since("0.4.9", kinds)
