# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of enrolment: the form is `core/enrolment`'s."""

from updaterd.core import enrolment
from updaterd.core.names import NAME
from updaterd.server.http.enroll import STATUS
from updaterd.server.http.openapi.forms import Codes, Part, responses, text_schema

_REFUSED: Codes = {
    400: ("malformed", "newer_schema"),
    405: ("method_not_allowed",),
    408: ("body_timeout",),
    413: ("too_large",),
    429: ("too_many_tries",),
    **{
        status: tuple(code for code, its in STATUS.items() if its == status)
        for status in (403, 409)
    },
    503: ("too_many_tokens", "tokens_unreadable", "tokens_unwritable"),
}


def enroll_operation() -> Part:
    """Return what enrolling a machine is."""
    claim = {
        "type": "object",
        "properties": {
            "schema": {"const": enrolment.SCHEMA},
            "code": text_schema("as it was given out", pattern=f"^{enrolment.CODE}$"),
            "token_sha256": text_schema(
                "hash of the token that the machine made",
                pattern=f"^{enrolment.DIGEST}$",
            ),
            "products": {
                "type": ["array", "null"],
                "maxItems": enrolment.MOST_PRODUCTS,
                "items": {"type": "string", "pattern": f"^{NAME}$"},
                "description": "what it has: a code for others is not used up",
            },
        },
        "required": ["schema", "code", "token_sha256"],
    }
    granted = {
        "type": "object",
        "properties": {
            "schema": {"const": enrolment.SCHEMA},
            "id": text_schema("public name of the token"),
            "name": text_schema("what the operator calls it"),
            "scopes": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["schema", "id", "name", "scopes"],
        "additionalProperties": False,
    }
    answer = {"content": {"application/json": {"schema": granted}}}
    return {
        "operationId": "enroll",
        "tags": ["enrolment"],
        "summary": "Use a one-time code: the machine's token counts from then on",
        "description": "Whoever got no answer asks again with the same code and hash. "
        f"{enrolment.MAX_BODY} bytes at most.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": claim}},
        },
        "responses": responses(
            _REFUSED,
            s200={"description": "It was enrolled before, by this code", **answer},
            s201={"description": "It is enrolled", **answer},
        ),
    }
