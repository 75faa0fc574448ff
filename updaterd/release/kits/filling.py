# SPDX-License-Identifier: Apache-2.0
"""What a kit's texts become in a person's places, whatever their home is called.

Part of the installer (`installer.py`): only Python's standard library, and no imports
of ours. A home may have spaces and whatever else a file's name may have; each
kind of file has its own way to write that. But for quotes, backslashes and control
characters: systemd starts no program whose path has one.
"""

import json
import re

_PLAIN = re.compile(r"[\w/.+@-]+")
_PERSON = "default.target"
# what stands before `{root}` belongs to it, up to a space, a quote or a `=`
_PROGRAM = re.compile(
    r"""(?P<quote>"?)(?P<word>[^\s"=]*\{root\}[^\s"]*|(?<==)updaterd-launch\b)"""
)


def settings(text: str, *, root: str, first: str) -> str:
    """Return the configuration: what is filled in stands in strings of TOML."""
    for word, value in (("{root}", root), ("{target}", _PERSON), ("{first}", first)):
        text = text.replace(word, json.dumps(value, ensure_ascii=False)[1:-1])
    return text


def unit(text: str, *, root: str, below: str) -> str:
    """Return a unit.

    Args:
        text: as the publisher wrote it.
        root: the product's.
        below: the same with `~` for the home.
    """
    # systemd writes %h out when it has read the line: a space in it parts nothing
    safe = root if _PLAIN.fullmatch(root) else "%h" + below.removeprefix("~")
    return text.replace("{root}", safe).replace("{target}", _PERSON)


def for_systemd(path: str) -> str:
    """Return a program's path as a unit's Exec lines have it (systemd.service(5))."""
    if _PLAIN.fullmatch(path):
        return path
    doubled = path.replace("%", "%%")
    return f':"{doubled}"'  # `:`: nothing in it is a variable


def desktop_file(text: str, *, root: str, launcher: str) -> str:
    """Return a desktop file: a program in `Exec=` is quoted, all else stands as it is.

    Args:
        text: as the publisher wrote it.
        root: the product's.
        launcher: `updaterd-launch`: a session may not look for it where it is.
    """

    def program(match: "re.Match[str]") -> str:
        word = match["word"]
        word = launcher if word == "updaterd-launch" else word.replace("{root}", root)
        if _PLAIN.fullmatch(word):
            return match["quote"] + word
        for letter in '\\"`$':
            word = word.replace(letter, "\\" + letter)
        # what is quoted is the value of a key, which has its own escapes
        word = word.replace("%", "%%").replace("\\", "\\\\")
        return match["quote"] + word if match["quote"] else f'"{word}"'

    lines = [
        _PROGRAM.sub(program, line) if line.startswith("Exec=") else line
        for line in text.splitlines(keepends=True)
    ]
    return "".join(lines).replace("{root}", root).replace("{target}", _PERSON)
