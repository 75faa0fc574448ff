# SPDX-License-Identifier: Apache-2.0
"""Write man pages and shell completions: from the command line's parser, and docs/.

python manuals.py SHARE EPOCH      into SHARE/man and the shells' folders
"""

import argparse
import gzip
import sys
import time
from pathlib import Path

import completions
import pages
import shtab
from argparse_manpage.manpage import Manpage

import updaterd
from updaterd import cli

DOCS = Path(__file__).resolve().parents[1] / "docs"
# pages of docs/ that have a man page: its name, section and first line
FILES = {
    "configuration.md": ("updaterd.toml", 5, "configuration of updaterd"),
}
SHELLS = {
    "bash": "bash-completion/completions/updaterd",
    "zsh": "zsh/vendor-completions/_updaterd",
}


def commands(parser, title):
    """Yield each command's parser with the name of its page."""
    yield title, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and title.count("-") < 2:
            for name, sub in action.choices.items():
                yield from commands(sub, f"{title}-{name}")


def page(title, parser, date, version):
    """Return one page; its name has hyphens where the command has spaces."""
    about = (parser.description or title).strip().splitlines()[0].rstrip(".")
    about = about[0].lower() + about[1:]
    manual = {"date": date, "project_name": f"updaterd {version}"}
    manual["manual_title"] = "updaterd"
    lines = str(Manpage(parser, _data=manual)).splitlines()
    name = title.replace("-", "\\-")
    lines[0] = f'.TH {name.upper()} "1" "{date}" "updaterd {version}" "updaterd"'
    lines[2] = f"{name} \\- {about}"
    return "\n".join(lines) + "\n"


def write(share, title, section, text):
    path = share / f"man/man{section}" / f"{title}.{section}.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def main():
    share, epoch = Path(sys.argv[1]), int(sys.argv[2])
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    parser = cli.build_parser()
    for title, sub in commands(parser, "updaterd"):
        write(share, title, 1, page(title, sub, date, updaterd.__version__))
    for name, (title, section, about) in FILES.items():
        head = pages.head(title, section, about, (date, updaterd.__version__))
        text = head + pages.body((DOCS / name).read_text(encoding="utf-8"))
        write(share, title, section, text)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.help = "command"  # shtab leaves out what the help does not show
    completions.know_products(parser)
    path = share / "fish/vendor_completions.d/updaterd.fish"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(completions.fish(parser))
    for shell, place in SHELLS.items():
        path = share / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            shtab.complete(parser, shell=shell, preamble=completions.PREAMBLE)
        )


main()
