# SPDX-License-Identifier: Apache-2.0
"""Names that become paths and role names, and which of them are allowed.

A product, channel, version or platform is a single path component wherever it
appears: in a URL, in the repository and on the machine. So none may hold a slash,
start with a dot or a dash, or be anything but plain ASCII.
"""

import re

from updaterd.errors import MalformedError

NAME = r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?"
VERSION = r"[A-Za-z0-9][A-Za-z0-9.+_~-]{0,63}"
_NAME, _VERSION = re.compile(NAME, re.ASCII), re.compile(VERSION, re.ASCII)


def check_name(kind: str, value: str) -> str:
    """Return `value` when it can name a product, a channel or a platform.

    Lower case, digits, `-` and `_`; 64 characters at most. No dot: a role is
    called PRODUCT.CHANNEL, and the dot must split it one way only.

    Raises:
        MalformedError: it cannot; `kind` says in the message what it was.
    """
    if _NAME.fullmatch(value) is None:
        raise MalformedError(
            f"{kind} {value!r:.80} is not a usable name",
            do="use up to 64 of a-z, 0-9, '-' and '_', a letter or digit at both ends",
            code="bad_name",
        )
    return value


def check_version(value: str) -> str:
    """Return `value` when it can label a release.

    Labels are never compared: the order of releases is their `seq`.

    Raises:
        MalformedError: it cannot be one path component.
    """
    if _VERSION.fullmatch(value) is None:
        raise MalformedError(
            f"version {value!r:.80} is not a usable label",
            do="use up to 64 of letters, digits and '.+_~-', a letter or digit first",
            code="bad_version",
        )
    return value


def version_key(version: str) -> tuple[int, ...]:
    """Return updaterd's own version as numbers ("1.4.0rc1" -> (1, 4, 0)).

    Only for updaterd's own versions, which are numeric; releases of products are
    ordered by `seq` and never compared so.
    """
    match = re.match(r"\d{1,9}(?:\.\d{1,9})*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
