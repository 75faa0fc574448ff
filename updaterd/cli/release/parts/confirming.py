# SPDX-License-Identifier: Apache-2.0
"""A person confirms what is to be signed."""

import sys


def is_confirmed() -> bool:
    """Ask whether it is to be signed; on stderr, for stdout may be for a program.

    Raises:
        BrokenError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        from updaterd.errors import BrokenError

        raise BrokenError(
            "there is no terminal on which a person could confirm the signature",
            means="nothing was signed",
            do="read what is to be signed, then use --yes",
            code="not_confirmed",
        )
    try:
        print("sign this? [yes/no] ", end="", file=sys.stderr, flush=True)
        reply = input()
    except EOFError:  # Ctrl-D
        reply = ""
    if reply != "yes":
        print("\nnot signed", file=sys.stderr)
    return reply == "yes"
