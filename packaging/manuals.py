# SPDX-License-Identifier: Apache-2.0
"""Write man pages and shell completions from the command line's own parser.

python manuals.py SHARE EPOCH      into SHARE/man/man1 and the shells' folders
"""

import argparse
import gzip
import sys
import time
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

import updaterd
from updaterd import cli

SHELLS = {
    "bash": "bash-completion/completions/updaterd",
    "zsh": "zsh/vendor-completions/_updaterd",
}


def pages(parser, title):
    """Yield each command's parser with the name of its page."""
    yield title, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and title.count("-") < 2:
            for name, sub in action.choices.items():
                yield from pages(sub, f"{title}-{name}")


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


def main():
    share, epoch = Path(sys.argv[1]), int(sys.argv[2])
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    parser = cli.build_parser()
    for title, sub in pages(parser, "updaterd"):
        path = share / "man/man1" / f"{title}.1.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = page(title, sub, date, updaterd.__version__)
        path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.help = "command"  # shtab leaves out what the help does not show
    for shell, place in SHELLS.items():
        path = share / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shtab.complete(parser, shell=shell))


main()
