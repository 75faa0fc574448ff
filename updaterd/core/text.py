# SPDX-License-Identifier: Apache-2.0
"""Text made safe to show: on a terminal, in a log, to every user of a machine."""

from urllib.parse import urlsplit, urlunsplit


def printable(text: str, *, longest: int = 2000) -> str:
    r"""Return `text` with control and format characters escaped, and cut.

    A release that calls itself `\x1b[2J` must not clear an administrator's screen,
    nor may a bidirectional override reorder a line (Unicode TR 36, section 2).
    """
    shown = text[:longest]
    if not shown.isprintable():  # rare, and worth 50 us where it is not so
        shown = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown
        )
    if len(text) <= longest and len(shown) <= longest:
        return shown
    return shown[:longest] + "…"


def public_url(url: str) -> str:
    """Return an address without what may be a secret: user, password, query.

    `status.json` is for everybody on the machine; some feeds have a token in theirs.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not an address)"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
