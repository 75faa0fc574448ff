# SPDX-License-Identifier: Apache-2.0
"""Releases as AppStream's `<releases>`: what software centres show of an application.

https://www.freedesktop.org/software/appstream/docs/sect-Metadata-Releases.html
Markdown becomes the paragraphs and lists that AppStream has; all else stays text.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree as ET

from updaterd.core import release_notes
from updaterd.core.release_notes import ANY, Notes

_ITEM = re.compile(r"\s{0,3}(?:[-*+]|(\d{1,9})[.)])\s+(.*)")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s[^()]*)?\)")
"""No part goes past where the next link could begin: else the time grows cubically."""
_SCHEME = re.compile(r"https?://")
"""Of addresses, which AppStream does not want in a text: they cannot be followed."""
_SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|__([^_]+)__")
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One release."""

    version: str
    at: datetime
    notes: Notes = ()


def document(entries: Iterable[Entry]) -> str:
    """Return the `<releases>` of these, in their order, as a document of its own."""
    root = ET.Element("releases")
    for entry in entries:
        element = ET.SubElement(
            root, "release", version=entry.version, date=f"{entry.at:%Y-%m-%d}"
        )
        _describe(element, entry.notes)
    _indent(root, "\n")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, "unicode")}\n'


def _indent(element: ET.Element, margin: str) -> None:
    """Put each element on a line of its own, but what stands within a text."""
    if element.tag in {"p", "li"} or not len(element):
        return
    inner = f"{margin}  "
    element.text = inner
    for child in element:
        _indent(child, inner)
        child.tail = inner
    element[-1].tail = margin


def _describe(release: ET.Element, notes: Notes) -> None:
    """Add the description: one text without a language, others with theirs."""
    chosen = release_notes.choose(notes, ())
    if chosen is None:
        return
    untranslated = chosen[0]
    description = ET.SubElement(release, "description")
    ordered = sorted(notes, key=lambda note: (note[0] != untranslated, note[0]))
    for language, text in ordered:
        if language == ANY and untranslated != ANY:
            continue
        for tag, lines in _blocks(release_notes.plain(text)):
            parent = description if tag == "p" else ET.SubElement(description, tag)
            for line in lines:
                element = ET.SubElement(parent, "p" if tag == "p" else "li")
                if language != untranslated:
                    element.set(_LANG, language.replace("-", "_"))
                _fill(element, line)


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield paragraphs and lists of Markdown, as AppStream's tag and their lines."""
    tag, lines = "p", [""]
    for line in [*text.split("\n"), ""]:
        item = _ITEM.fullmatch(line)
        if item is not None:
            kind = "ol" if item[1] else "ul"
            if tag != kind:
                yield from _full(tag, lines)
                tag, lines = kind, []
            lines.append(item[2])
        elif not line.strip() or line.lstrip().startswith("#"):
            yield from _full(tag, lines)
            tag, lines = "p", [""]
            if line.strip():
                yield from _full("p", [line.strip().strip("#")])
        else:
            lines[-1] = f"{lines[-1]} {line.strip()}"


def _full(tag: str, lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    texts = [" ".join(line.split()) for line in lines]
    if any(texts):
        yield tag, [text for text in texts if text]


def _fill(element: ET.Element, line: str) -> None:
    """Put a line's text into an element, with `code` and `em`."""
    line = _SCHEME.sub("", _LINK.sub(r"\1", line))
    end, before = 0, element
    for span in _SPAN.finditer(line):
        _append(element, before, line[end : span.start()])
        before = ET.SubElement(element, "code" if span[1] else "em")
        before.text = next(group for group in span.groups() if group)
        end = span.end()
    _append(element, before, line[end:])


def _append(element: ET.Element, before: ET.Element, text: str) -> None:
    if before is element:
        element.text = (element.text or "") + text
    else:
        before.tail = text
