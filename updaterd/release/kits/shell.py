# SPDX-License-Identifier: Apache-2.0
"""The installer for a shell: a few lines of sh, a program for Python, a tar behind it.

The shell finds a Python and hands over; it runs nothing before its last line was read,
so a file that was cut short does nothing. The program (`installer.py`) compares all
that follows, and all that it fetches, with hashes that stand in it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from updaterd import __version__
from updaterd.release.kits.contents import File
from updaterd.release.kits.deb import tar
from updaterd.release.kits.description import Kit

_IMPORT = re.compile(r"^from updaterd\.release\.kits\.(\w+) import .*\n", re.MULTILINE)
_SHELL = """\
#!/bin/sh
# {title}: installs it with updaterd, which keeps it up to date. Kit {version}.
#   sh {name}.sh           for this machine, as root
#   sh {name}.sh --user    for you alone, without root
#   sh {name}.sh --help    and how to remove it
set -eu

main() {{
    if [ ! -f "$0" ]; then
        echo "{name}: save this to a file and run: sh {name}.sh" >&2
        exit 1
    fi
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' \\
            >/dev/null 2>&1; then
            exec "$python" -I -c "$program" "$0" "$@"
        fi
    done
    echo "{name}: Python 3.11 or newer is needed (on Debian: apt install python3)" >&2
    exit 1
}}

program=$(
    cat <<'END_OF_PROGRAM'
{program}
END_OF_PROGRAM
)

main "$@"
exit 1
"""


def script(
    kit: Kit,
    *,
    packages: Mapping[str, bytes],
    person: Mapping[str, bytes],
    carry: bool,
    when: int,
) -> bytes:
    """Return the installer.

    Args:
        kit: what it is for.
        packages: the kit's own packages, by file name.
        person: what a person's places get.
        carry: bring updaterd's packages along, too.
        when: of everything in it, Unix seconds.
    """
    inside = {f"kit/{name}": File(data) for name, data in packages.items()}
    inside |= {f"person/{path}": File(data) for path, data in person.items()}
    if carry:
        for package in kit.packages:
            inside[f"updaterd/{package.path.name}"] = File(package.path.read_bytes())
    payload = tar(inside, when, packed=False)
    facts = {
        "name": kit.name,
        "product": kit.product,
        "title": kit.title,
        "version": kit.version,
        "user_root": kit.user_root,
        "updaterd": __version__,
        "payload": [len(payload), hashlib.sha256(payload).hexdigest()],
        "packages": [
            {
                "file": package.path.name,
                "kind": package.kind,
                "machine": package.machine,
                "length": package.length,
                "sha256": package.sha256,
                "url": "" if carry else f"{kit.url}/{package.path.name}",
            }
            for package in kit.packages
        ],
    }
    source = Path(__file__).with_name("installer.py").read_text("utf-8")
    source = _IMPORT.sub(_inlined, source)
    program = source.replace('json.loads("{}")', _python(facts), 1)
    text = _SHELL.format(
        title=kit.title,
        name=kit.name,
        version=kit.version,
        program=program.rstrip("\n"),
    )
    return text.encode() + payload


def _python(facts: Mapping[str, object]) -> str:
    """Return facts as Python reads them, in plain ASCII."""
    return f"json.loads({json.dumps(facts)!a})"


def _inlined(line: re.Match[str]) -> str:
    """Return the text of a module that the installer imports here."""
    return Path(__file__).with_name(f"{line[1]}.py").read_text("utf-8")
