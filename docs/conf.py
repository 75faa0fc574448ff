# SPDX-License-Identifier: Apache-2.0
"""The documentation's site: sphinx-build -W docs site (docs/decisions/0032)."""

import re
from pathlib import Path

from updaterd import __version__

project = "updaterd"
author = "the updaterd maintainers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["fronting"]

html_theme = "furo"
html_title = f"updaterd {release}"
html_show_sphinx = False
html_copy_source = html_show_sourcelink = False

myst_heading_anchors = 4  # as GitHub makes them: `owner.md#recovery-recipes`
autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"

_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ARROW = re.compile(r"(\S+) --> (\S+)")
_LOADED = re.compile(
    r"<(?:script|img|iframe|link(?![^>]*canonical))\b[^>]*(?:src|href)=\"((?:https?:)?//[^\"]+)"
    r"|@import[^;]*((?:https?:)?//[^;)]+)|url\(['\"]?((?:https?:)?//[^)]+)"
)


def diagram_as_table(_app, _name, source):
    """Show a diagram's transitions as a table: drawing it would need another host."""

    def rows(diagram):
        follow = {}
        for before, after in _ARROW.findall(diagram[1].replace("[*]", "(nothing)")):
            follow.setdefault(before, []).append(after)
        return "| state | may become |\n|---|---|\n" + "".join(
            f"| {state} | {', '.join(then)} |\n" for state, then in follow.items()
        )

    source[0] = _DIAGRAM.sub(rows, source[0])


def refuse_foreign_hosts(app, error):
    """Fail the build where a page would load something from another host.

    Raises:
        ValueError: one would.
    """
    if error:
        return
    for path in Path(app.outdir).rglob("*"):
        if path.suffix in {".html", ".css"}:
            for hit in _LOADED.finditer(path.read_text()):
                address = next(filter(None, hit.groups()))
                raise ValueError(f"{path} loads {address}")


def setup(app):
    app.connect("source-read", diagram_as_table)
    app.connect("build-finished", refuse_foreign_hosts)
