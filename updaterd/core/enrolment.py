# SPDX-License-Identifier: Apache-2.0
"""The wire of enrolment: a one-time code for a token that the machine made itself.

The machine sends the hash of a token that nobody else has seen. So an answer that is
lost costs nothing: whoever asks again with the code and the same hash is the same
machine, and who has seen the code, even the whole exchange, has no token.

A code is 100 random bits, in Crockford's letters (no I, L, O and U), to be read out
and typed: `7GK2M-0QXPA-T9DBE-4HZ1W`.
"""

import hashlib
import re

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields, encode, parse_object
from updaterd.core.names import NAME
from updaterd.errors import MalformedError, RejectedError

ENROLL_PATH = "/v1/enroll"
SCHEMA = 1
MAX_BODY = 16 * 1024
CODE_BYTES = 13
"""Random bytes that a code is made of; 100 of their bits count."""
MOST_PRODUCTS = 100

_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH, _GROUP = 20, 5
CODE = rf"(?:[{_LETTERS}]{{{_GROUP}}}-){{3}}[{_LETTERS}]{{{_GROUP}}}"
DIGEST = r"[0-9a-f]{64}"
_ALIKE = str.maketrans({"O": "0", "I": "1", "L": "1", "-": "", " ": ""})
_CODE, _DIGEST, _NAME = (re.compile(at, re.ASCII) for at in (CODE, DIGEST, NAME))


class BadCodeError(RejectedError):
    """What was typed can be no code."""

    code = "bad_code"


def code_of(raw: bytes) -> str:
    """Return the code that `CODE_BYTES` random bytes stand for."""
    number = int.from_bytes(raw[:CODE_BYTES])
    letters = "".join(_LETTERS[number >> 5 * at & 31] for at in range(_LENGTH))
    return "-".join(letters[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))


def read_code(text: str) -> str:
    """Return a code as it is sent, from what a person typed.

    Raises:
        BadCodeError: it can be none.
    """
    letters = text.strip().upper().translate(_ALIKE)
    if len(letters) != _LENGTH or letters.strip(_LETTERS):
        raise BadCodeError(
            "what was given is not an enrolment code",
            means="the server was not asked, and the code still counts",
            do=f"a code has {_LENGTH} letters and digits, such as "
            "7GK2M-0QXPA-T9DBE-4HZ1W: compare it with what you got",
        )
    return "-".join(letters[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))


def digest_of(secret: str) -> str:
    """Return the hash of a code or token: all that is kept of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a machine asks.

    Attributes:
        code: as `read_code` has it.
        token_sha256: of the token that it made.
        products: what it has, so that a code for another product is not used up.
    """

    code: str
    token_sha256: str
    products: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return the body of the request."""
        return encode({
            "schema": SCHEMA,
            "code": self.code,
            "token_sha256": self.token_sha256,
            "products": self.products,
        })


def parse_asked(body: bytes) -> Asked:
    """Read the body of a request.

    Raises:
        MalformedError: it is none.
    """
    fields = _opened(body, "the request")
    claim = Asked(
        code=_matching(fields, "code", _CODE),
        token_sha256=_matching(fields, "token_sha256", _DIGEST),
        products=fields.texts("products", most=MOST_PRODUCTS),
    )
    for name in claim.products:
        if _NAME.fullmatch(name) is None:
            raise MalformedError(f"the request: {name!r:.80} names no product")
    return claim


def _opened(body: bytes, where: str) -> Fields:
    """Return the fields of a request or answer.

    Raises:
        MalformedError: it is none of ours, or a newer updaterd's.
    """
    fields = parse_object(body, where=where, limit=MAX_BODY)
    if fields.integer("schema") != SCHEMA:
        raise MalformedError(f"{where} has another `schema`", code="newer_schema")
    return fields


def _matching(fields: Fields, name: str, pattern: re.Pattern[str]) -> str:
    text = fields.text(name)
    if pattern.fullmatch(text) is None:
        raise MalformedError(f"{fields.where}: {name!r} is not of its form")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a server answers.

    Attributes:
        id: public name of the token.
        name: what the operator calls it.
        scopes: what it lets its bearer do.
    """

    id: str
    name: str
    scopes: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the body of the answer."""
        return encode({
            "schema": SCHEMA,
            "id": self.id,
            "name": self.name,
            "scopes": self.scopes,
        })


def parse_granted(body: bytes) -> Granted:
    """Read the answer of a server.

    Raises:
        MalformedError: it is none.
    """
    fields = _opened(body, "the answer")
    ident = fields.text("id", longest=64)
    if not ident:  # a machine without one would count as not enrolled
        raise MalformedError("the answer: 'id' is empty")
    return Granted(
        id=ident,
        name=fields.text("name"),
        scopes=fields.texts("scopes", most=64),
    )
