"""What the documentation draws is what the code does."""

from pathlib import Path

import pytest

from updaterd.core import lifecycle

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_diagram_in_the_docs_is_the_tables():
    """Made by lifecycle.diagram(); paste it anew when the table changes."""
    if not DOCS.exists():
        pytest.skip("not in a source tree")
    drawn = DOCS.read_text().partition("```mermaid\n")[2].partition("```")[0]

    assert lifecycle.diagram() == drawn
