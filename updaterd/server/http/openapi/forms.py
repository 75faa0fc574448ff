# SPDX-License-Identifier: Apache-2.0
"""Parts of which the OpenAPI document is made: answers, refusals, parameters."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from updaterd.core import codes
from updaterd.server.http import answers

Part = dict[str, Any]
Codes = dict[int, tuple[str, ...]]

ANY: Codes = {
    400: ("bad_request", "host", "target", "framing", "protocol_upgrade"),
    408: (),
    431: ("head_too_large",),
    500: ("unexpected",),
    501: ("transfer_encoding",),
    503: ("unavailable",),
    505: ("http_version",),
}
"""Codes by status that any request can be answered with."""


def text_schema(description: str, **more: Any) -> Part:
    """Return the schema of a string."""
    return {"type": "string", "description": description, **more}


def header(description: str, **schema: Any) -> Part:
    """Return a header of an answer."""
    return {"description": description, "schema": {"type": "string", **schema}}


def refusal(status: int, names: Iterable[str]) -> Part:
    """Return the answer with a status, and what each of its codes means."""
    rows = codes.table()
    text = "; ".join(f"`{name}`: {rows[name].meaning}" for name in names)
    phrase = HTTPStatus(status).phrase
    answer: Part = {
        "description": f"{phrase}. {text}" if text else phrase,
        "content": {
            answers.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    if status == HTTPStatus.UNAUTHORIZED:
        answer["headers"] = {"WWW-Authenticate": header("RFC 6750")}
    if status in {429, 503}:
        answer["headers"] = {
            "Retry-After": header("seconds until it may work", pattern="^[0-9]+$")
        }
    return answer


def responses(own: Codes, **good: Part) -> Part:
    """Return the answers of an operation; those of any request are referred to."""
    refused = {
        str(status): refusal(status, (*own[status], *ANY.get(status, ())))
        if status in own
        else {"$ref": f"#/components/responses/Any{status}"}
        for status in sorted(own.keys() | ANY.keys())
    }
    return {name.removeprefix("s"): answer for name, answer in good.items()} | refused


def parameter(name: str, where: str, text: str, schema: Part, **more: Any) -> Part:
    """Return a parameter of an operation."""
    return {"name": name, "in": where, "description": text, "schema": schema, **more}
