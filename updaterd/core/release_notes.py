# SPDX-License-Identifier: Apache-2.0
"""Release notes: what a release brings, for the people who use it, in their language.

Markdown, in the manifest: a few lines that every machine fetches, so they are bounded.
They never decide anything. Whoever shows them shows `plain` of them, since a terminal
and XML take characters for orders.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping

from updaterd.errors import MalformedError

Notes = tuple[tuple[str, str], ...]
"""Languages (BCP 47) and texts, sorted by language."""

MAX_BYTES = 16_384
"""Of all languages together, in UTF-8."""
MAX_LANGUAGES = 32
ANY = "und"
"""A language that nobody named: what is shown where no other fits."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}")
_COUNTRY = 2
_JOINERS = frozenset("\u200c\u200d")
"""Persian and emoji need them; they move nothing."""


def check_language(name: str) -> str:
    """Return the name of a language as it is written here: `de`, `pt-BR`.

    Raises:
        MalformedError: it is none.
    """
    if _LANGUAGE.fullmatch(name) is None:
        raise MalformedError(f"{name!r:.40} is no language, such as `de` or `pt-BR`")
    first, *more = name.split("-")
    countries = (part.upper() if len(part) == _COUNTRY else part for part in more)
    return "-".join((first.lower(), *countries))


def check(notes: Mapping[str, object], where: str) -> Notes:
    """Return the notes of a release, sorted.

    Raises:
        MalformedError: they are no texts by language, or too many, or too long.
    """
    if len(notes) > MAX_LANGUAGES:
        raise MalformedError(
            f"{where} are in {len(notes)} languages, the limit is {MAX_LANGUAGES}",
            code="too_large",
        )
    texts: dict[str, str] = {}
    for language, text in notes.items():
        if not isinstance(text, str):
            raise MalformedError(f"{where}: {language!r:.40} is no text")
        texts[check_language(language)] = text
    try:
        size = sum(len(text.encode()) for text in texts.values())
    except UnicodeEncodeError as error:
        raise MalformedError(f"{where} are no Unicode text") from error
    if size > MAX_BYTES:
        raise MalformedError(
            f"{where} have {size:,} bytes in all languages, the limit is {MAX_BYTES:,}",
            code="too_large",
        )
    return tuple(sorted(texts.items()))


def hidden(text: str) -> tuple[int, str] | None:
    """Return the first character that is never shown, as its line and `U+202E`."""
    for number, line in enumerate(text.split("\n"), start=1):
        for char in line:
            if _is_hidden(char):
                return number, f"U+{ord(char):04X}"
    return None


def _is_hidden(char: str) -> bool:
    if char.isprintable() or char in _JOINERS or char == "\t":
        return False
    return unicodedata.category(char) != "Zs"  # a space that is not the usual one


def plain(text: str) -> str:
    """Return a text of which nothing but letters and lines reaches a terminal.

    Controls, overrides of direction and what has no width are left out.
    """
    lines = []
    for line in text.split("\n"):
        shown = "".join(c for c in line if not _is_hidden(c))
        lines.append("".join(" " if c.isspace() else c for c in shown).rstrip())
    return "\n".join(lines).strip("\n")


def preferred(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the languages of a user, the best first, by the usual variables."""
    locale = next(
        (
            environment[name]
            for name in ("LC_ALL", "LC_MESSAGES", "LANG")
            if environment.get(name)
        ),
        "",
    )
    names = [locale]
    if locale.split(".")[0] not in ("", "C", "POSIX"):
        names = [*environment.get("LANGUAGE", "").split(":"), locale]
    languages = (re.split(r"[.@]", name)[0].replace("_", "-") for name in names)
    return tuple(
        dict.fromkeys(
            check_language(name) for name in languages if _LANGUAGE.fullmatch(name)
        )
    )


def choose(notes: Notes, languages: Iterable[str]) -> tuple[str, str] | None:
    """Return the language and text for a user; None: there is no text at all.

    The language itself, else one that begins as it does, else what has no language,
    English, or whatever there is.
    """
    texts = dict(notes)
    for language in languages:
        base = language.partition("-")[0]
        near = [name for name in texts if name.partition("-")[0] == base]
        for name in (language, base, *near):
            if name in texts:
                return name, texts[name]
    for name in (ANY, "en", *texts):
        if name in texts:
            return name, texts[name]
    return None
