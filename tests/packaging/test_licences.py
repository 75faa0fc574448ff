# SPDX-License-Identifier: Apache-2.0
"""Every source file says under which licence it is, as LICENSE and pyproject do."""

import subprocess
import tomllib
from pathlib import Path

from fakes.tools import need

REPO = Path(__file__).parents[2]
# Prose, formats without comments, what tools write, and .pth (a line is code there).
SILENT = (".json", ".lock", ".md", ".png", ".pth", ".typed")
BARE = {"LICENSE", ".gitignore"}
GOLDEN = "/golden/"


def licence() -> str:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    return f"SPDX-License-Identifier: {project['project']['license']}"


def tracked() -> list[Path]:
    listed = subprocess.run(
        [need("git"), "-C", REPO, "ls-files", "-z"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [REPO / name for name in listed.stdout.split("\0") if name]


def is_source(path: Path) -> bool:
    return (
        path.is_file()
        and path.suffix not in SILENT
        and path.name not in BARE
        and GOLDEN not in str(path)
    )


def header(path: Path) -> str:
    """Return the line where the licence stands: the first, or the one below `#!`."""
    lines = path.read_text(encoding="utf-8").split("\n", 2)
    return lines[1] if lines[0].startswith("#!") else lines[0]


def test_each_source_file_names_its_licence():
    """So does a file that is copied alone, and a tool that lists licences."""
    sources = [path for path in tracked() if is_source(path)]
    silent = [
        str(path.relative_to(REPO))
        for path in sources
        if header(path)
        not in {
            f"# {licence()}",
            f"/* {licence()} */",
            f"{{# {licence()} #}}",  # a template
            f"<!-- {licence()} -->",
        }
    ]

    assert len(sources) > 500
    assert not silent, (
        f"put `# {licence()}` (in C: `/* {licence()} */`) on line 1 of these files, "
        f"or on line 2 below a `#!`: {' '.join(silent)}"
    )
