# SPDX-License-Identifier: Apache-2.0
"""Keep secrets out of what is shown to others."""

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

_SECRET_KEYS = re.compile(
    r"headers|token|password|passphrase|secret|cookie", re.IGNORECASE
)
_USERINFO = re.compile(r"(?<=://)[^/\s\"']+@")  # to the last @: one may be in it
_QUERY = re.compile(r"(?<=[?&])([\w.-]+)=[^&\s\"'<>\\]+")
_HEADER = re.compile(
    r"(?i)\b(authorization|x-api-key|cookie|bearer)\b([\\\"']*\s*[:= ]\s*[\\\"']*)"
    r"[^\s\"',}\\]+(?:\s+[^\s\"',}\\]+)?"
)
_WORD = r"[\w-]{0,40}"  # bounded: others' texts are searched
_NAME = rf"{_WORD}(?:token|passw(?:or)?d|passphrase|secret|api[_-]?key){_WORD}"
_NAMED = re.compile(rf"(?i)({_NAME}(?:=|:\s*))[^\s\"',}}\\]+")
"""In one word, or a header's line; a key of JSON has a quote before its colon."""
_OPTION = re.compile(rf'(?i)("--?{_NAME}",\s*")[^"]+')
_HIDDEN = "[left out]"
_SHORTEST = 4


def passwords(url: str) -> list[str]:
    """Return the words in an address that are for its server alone."""
    parts = [part.rstrip("@") for part in _USERINFO.findall(url)]
    words = [word for part in parts for word in part.split(":")]
    words += [part.partition("=")[2] for part in re.findall(r"[?&][\w.-]+=[^&]+", url)]
    return [*words, *(unquote(word) for word in words)]


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text without these words, and without what looks like a secret.

    Words of less than four letters are left: they would be everywhere.
    """
    words = set(secrets)
    words |= {json.dumps(word)[1:-1] for word in words}  # as texts in JSON have it
    words |= {json.dumps(word, ensure_ascii=False)[1:-1] for word in words}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= _SHORTEST:
            text = text.replace(word, _HIDDEN)
    text = _USERINFO.sub(f"{_HIDDEN}@", text)
    text = _QUERY.sub(rf"\1={_HIDDEN}", text)
    text = _OPTION.sub(rf"\1{_HIDDEN}", text)
    text = _NAMED.sub(rf"\1{_HIDDEN}", text)
    return _HEADER.sub(rf"\1\2{_HIDDEN}", text)


def bare(value: object) -> object:
    """Return nested settings without the values of keys that hold secrets."""
    if isinstance(value, dict):
        return {name: _without_value(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [bare(item) for item in value]
    return value


def _without_value(name: object, item: object) -> object:
    if item and isinstance(item, str | dict) and _SECRET_KEYS.search(str(name)):
        names = sorted(item) if isinstance(item, dict) else None
        return dict.fromkeys(names, _HIDDEN) if names else _HIDDEN
    return bare(item)
