# SPDX-License-Identifier: Apache-2.0
"""Pages of docs/ as man pages: the part of Markdown that they use, as roff.

A table becomes a list: its first column names an entry, the heads of the others their
lines. One page has one home, so `man 5 updaterd.toml` says what docs/configuration.md
says.
"""

import re

_PAGE = re.compile(r"\bdocs/(?=[\w./-]+\.md\b|decisions/)")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\*(\S[^*]*?)\*|\[([^]]+)\]\(([^)]+)\)")


def installed(text):
    """Return a page as it lies in /usr/share/doc/updaterd: beside the other pages."""
    return _PAGE.sub("", text)


def escape(text):
    """Return text that roff prints as it stands."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


def inline(text):
    """Return a line with its words in bold and italics; links keep their address."""
    parts, end = [], 0
    for match in _INLINE.finditer(text):
        code, strong, italic, label, address = match.groups()
        parts.append(escape(text[end : match.start()]))
        if label:
            parts.append(f"{inline(label)} ({escape(address)})")
        elif italic:
            parts.append(f"\\fI{escape(italic)}\\fR")
        else:
            parts.append(f"\\fB{escape(code) if code else inline(strong)}\\fR")
        end = match.end()
    return "".join([*parts, escape(text[end:])])


def cells(row):
    """Return a table row's cells; a bar in one is written with a backslash."""
    parts = re.split(r"(?<!\\)\|", row.strip().strip("|"))
    return [part.strip().replace("\\|", "|") for part in parts]


def table(rows):
    """Return a table as a list of entries."""
    head, _, *body = [cells(row) for row in rows]
    lines = []
    for first, *rest in body:
        lines += [".TP", inline(first)]
        labels = head[1:] if len(rest) > 1 else [""]
        texts = [
            f"{inline(label)}: {inline(text)}" if label else inline(text)
            for label, text in zip(labels, rest, strict=True)
        ]
        lines.append("\n.br\n".join(texts))
    return lines


def block(text):
    """Return a paragraph, list, table, heading or listing."""
    rows = text.split("\n")
    if text.startswith("## "):
        return [f'.SH "{escape(text[3:]).upper()}"']
    if text.startswith("### "):
        return [f'.SS "{escape(text[4:])}"']
    if text.startswith("|"):
        return table(rows)
    if text.startswith(("    ", "```")):
        code = rows[1:-1] if text.startswith("```") else [row[4:] for row in rows]
        return [".PP", ".RS 4", ".nf", *(escape(row) for row in code), ".fi", ".RE"]
    if re.match(r"(-|\d+\.) ", text):
        items = re.split(r"\n(?=(?:-|\d+\.) )", text)
        marks = (
            re.match(r"(-|\d+\.) +(.*)", item, re.DOTALL).groups() for item in items
        )
        return [
            line
            for mark, body in marks
            for line in (f".IP {escape(mark)} 4", *paragraph(body.split("\n")))
        ]
    return [".PP", *paragraph(rows)]


def paragraph(rows):
    """Return running text; roff fills it anew."""
    text = " ".join(row.strip() for row in rows)
    return [inline(text)]


def head(name, section, about, stamp):
    """Return how a man page begins; `stamp` is the date and updaterd's version."""
    date, version = stamp
    lines = [
        f'.TH {name.upper()} "{section}" "{date}" "updaterd {version}" "updaterd"',
        *(".nh", ".ad l", ".SH NAME", f"{name} \\- {about}", ".SH DESCRIPTION"),
    ]
    return "\n".join(lines) + "\n"


def body(page):
    """Return a page of docs/ from below its title on."""
    text = re.sub(r"\A# .*\n+", "", _COMMENT.sub("", page).strip())
    chunks = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    blocks = [
        part
        for number, chunk in enumerate(chunks)
        for part in ([chunk] if number % 2 else re.split(r"\n{2,}", chunk.strip("\n")))
        if part.strip()
    ]
    lines = [line for part in blocks for line in block(part)]
    lines += [".SH SEE ALSO", ".BR updaterd (1), /usr/share/doc/updaterd"]
    return "\n".join(lines) + "\n"
