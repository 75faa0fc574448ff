"""Text from the network, made safe to show on a terminal or in a log."""


def printable(text: str, *, longest: int = 2000) -> str:
    r"""Return `text` with control and format characters escaped, and cut.

    A release that calls itself `\x1b[2J` must not clear an administrator's screen,
    nor may a bidirectional override reorder a line (Unicode TR 36, section 2).
    """
    cut = text[:longest]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut
    )
    return shown if len(text) <= longest else shown + "…"
