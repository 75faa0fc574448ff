# SPDX-License-Identifier: Apache-2.0
"""Release notes as their author wrote them, read from files: never more than fits."""

from collections.abc import Iterable
from pathlib import Path

from updaterd.core import release_notes
from updaterd.core.release_notes import MAX_BYTES, Notes
from updaterd.errors import BrokenError, MalformedError, RejectedError


def read(files: Iterable[tuple[str, Path]]) -> Notes:
    """Return the notes in some files, each with its language.

    Raises:
        BrokenError: one cannot be read.
        RejectedError: one is no text, or has what no reader would see; a language is
            named twice; or they are too long.
    """  # noqa: DOC501 - raised through _refused and _text
    texts: dict[str, str] = {}
    for language, path in files:
        if language in texts:
            raise _refused(f"notes for {language!r} are given twice")
        texts[language] = _text(path)
    try:
        return release_notes.check(texts, "notes")
    except MalformedError as error:
        raise _refused(error.cause) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 4)  # and what a byte order mark takes
    except OSError as error:
        raise BrokenError(
            f"{path} cannot be read: {error.strerror}", code="unreadable"
        ) from error
    if len(data) > MAX_BYTES + 3:
        raise _refused(f"{path} has more than {MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError as error:
        raise _refused(f"{path} is not UTF-8 (byte {error.start})") from error
    unseen = release_notes.hidden(text)
    if unseen is not None:
        line, name = unseen
        raise _refused(f"{path}, line {line}: {name} is a character that nobody sees")
    if not text:
        raise _refused(f"{path} is empty")
    return text


def _refused(cause: str) -> RejectedError:
    return RejectedError(
        cause,
        means="notes are plain Markdown in UTF-8, in the manifest that every machine "
        "fetches; nothing was published",
        do="correct the file",
        code="bad_notes",
    )
