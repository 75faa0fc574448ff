# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of the feed server, as `/openapi.json` answers it.

Limits, names, statuses and codes are read from the modules that enforce them; what
stands here by itself is prose and form. tests/server/test_openapi.py holds that a body
is taken exactly when its schema says so, and that a real server answers nothing else.
"""

import json
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any

from updaterd import __version__
from updaterd.core import announcement, codes, layout, report
from updaterd.core.json_fields import MAX_INTEGER
from updaterd.core.names import NAME, VERSION
from updaterd.server import metrics
from updaterd.server.http import answers
from updaterd.server.http.announce import KEY_LIMIT, STATUS
from updaterd.server.http.reports import (
    CHANNEL_PATH,
    FLEET_PATH,
    MOST_RELEASES,
    REPORTS_PATH,
)
from updaterd.server.http.reports import STATUS as REPORT_STATUS
from updaterd.server.http.reports_openapi import release_schema, report_schema
from updaterd.server.streams.request import EVENTS_PATH, MAX_FIELDS, STREAM_TYPE

PATH = "/openapi.json"

Part = dict[str, Any]
Codes = dict[int, tuple[str, ...]]

_ANY: Codes = {
    400: ("bad_request", "host", "target", "framing", "protocol_upgrade"),
    408: (),
    431: ("head_too_large",),
    500: ("unexpected",),
    501: ("transfer_encoding",),
    503: ("unavailable",),
    505: ("http_version",),
}
"""Codes by status that any request can be answered with."""

_STREAM: Codes = {
    400: ("bad_name", "malformed"),
    401: ("token_required",),
    403: ("scope_missing",),
    406: ("not_acceptable",),
    429: ("too_many_of_address", "too_many_of_token"),
    503: ("not_ready", "full", "too_many_at_once", "tokens_unreadable"),
}
_ANNOUNCE: Codes = {
    400: ("idempotency_key_required", "malformed", "bad_name", "bad_version"),
    401: ("token_required", "identity_refused"),
    408: ("body_timeout",),
    429: ("too_many_announcements",),
    503: ("log_unreachable", "tokens_unreadable", "issuer_unreachable"),
    **{status: (code,) for code, status in STATUS.items()},
}
_FILES: Codes = {
    401: ("token_required",),
    404: ("not_found",),
    416: ("range_not_satisfiable",),
    503: ("downloads_full",),
}
_METRICS: Codes = {
    401: ("operate_scope_required", "identity_refused"),
    403: ("operate_scope_required",),
    404: ("not_found",),
}
_REPORT: Codes = {
    400: ("malformed", "newer_schema"),
    401: ("token_required",),
    404: ("not_found",),
    408: ("body_timeout",),
    429: ("too_many_reports",),
    503: ("reports_down", "reports_full", "tokens_unreadable"),
    **{status: (code,) for code, status in REPORT_STATUS.items()},
}
_FLEET: Codes = {
    400: ("bad_query",),
    401: ("token_required",),
    403: ("scope_missing",),
    404: ("not_found", "no_reports"),
    503: ("reports_down", "tokens_unreadable"),
}
_READY: Codes = {503: ("log_unreachable", "not_ready")}


@cache
def document() -> bytes:
    """Return the document as it is sent."""
    return json.dumps(describe(), indent=1).encode()


def describe() -> Part:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "updaterd feed",
            "version": __version__,
            "summary": "Announces releases to machines, replays, serves their files",
            "description": "An event is a hint and signed metadata is the truth: "
            "nothing here makes a machine install anything. Errors are "
            f"{answers.MEDIA_TYPE} (RFC 9457) with a stable `code`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "events", "description": "the feed"},
            {"name": "repository", "description": "signed files; with `serve --repo`"},
            {"name": "operation", "description": "what monitoring asks"},
        ],
        "paths": {
            EVENTS_PATH: {"get": _stream(), "post": _announce()},
            **{f"/repo/{path}": {"get": op} for path, op in _files().items()},
            REPORTS_PATH: {"post": _report()},
            **{path: {"get": op} for path, op in _fleet().items()},
            "/healthz": {"get": _probe("alive", "Whether the process turns", {})},
            "/readyz": {
                "get": _probe("ready", "Whether streams would be taken now", _READY)
            },
            "/metrics": {"get": _metrics()},
            PATH: {"get": _itself()},
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "of `updaterd token create`, or an identity token "
                    "that a grant of `updaterd token create --oidc` takes",
                }
            },
            "schemas": {
                "Announcement": announcement_schema(),
                "Announced": _announced(),
                "Problem": _problem(),
                "Report": report_schema(),
                "Release": release_schema(),
            },
            "responses": {
                f"Any{status}": _refusal(status, names)
                for status, names in _ANY.items()
            },
        },
    }


def announcement_schema() -> Part:
    """Return the schema of a body that `announcement.parse` takes.

    What `tuf` holds is checked beyond it: zlib, metadata, signatures, versions.
    """
    packed = {
        role: _text(
            f"{role}.json: base64 of zlib; unpacked {limit} bytes at most",
            maxLength=2 * limit,
        )
        for role, limit in announcement.MAX_UNPACKED.items()
    }
    schema: Part = {"const": announcement.SCHEMA}
    packed["snapshot"]["type"] = ["string", "null"]
    tuf: Part = {
        "type": "object",
        "description": "signed metadata, so that machines need not ask for it",
        "properties": packed,
        "required": ["timestamp"],
    }
    release: Part = {
        "schema": schema,
        "product": _text("whose release it is", pattern=f"^{NAME}$"),
        "channel": _text("where it is offered", pattern=f"^{NAME}$"),
        "version": _text("its label", pattern=f"^{VERSION}$"),
        "seq": {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
        "urgency": {
            "enum": [*announcement.URGENCIES, None],
            "default": announcement.URGENCIES[0],
        },
        "spread_s": {
            "type": ["integer", "null"],
            "minimum": 0,
            "maximum": announcement.MAX_SPREAD_S,
            "default": 0,
            "description": "over which machines should spread their starts",
        },
        "tuf": tuf | {"type": ["object", "null"]},
    }
    example = announcement.Announcement(
        product="acme", channel="stable", version="1.2.0", seq=7, spread_s=3600
    )
    return {
        "description": f"{announcement.MAX_BODY} bytes at most. Members that are not "
        "listed are dropped, and null is as good as none. Numbers are written without "
        "a fraction.",
        "anyOf": [
            {
                "type": "object",
                "title": "A release that a channel offers",
                "properties": release,
                "required": ["schema", "product", "channel", "version", "seq"],
            },
            {
                "type": "object",
                "title": "Metadata alone",
                "properties": {
                    "schema": schema,
                    "tuf": tuf,
                    "product": {"type": "null"},
                },
                "required": ["schema", "tuf"],
            },
        ],
        "examples": [json.loads(example.encode())],
    }


def _announced() -> Part:
    return {
        "type": "object",
        "properties": {
            "id": _text("of the event, as streams have it"),
            "streams": {
                "type": "integer",
                "minimum": 0,
                "description": "open at this process for its product and channel",
            },
        },
        "required": ["id", "streams"],
        "additionalProperties": False,
    }


def _problem() -> Part:
    texts = {
        "type": "names the kind: the same on every server, and no address",
        "title": "what the code means",
        "detail": "what was wrong this time",
        "code": "stable, for programs: docs/codes.md",
        "remedy": "what to do",
    }
    properties: Part = {name: _text(text) for name, text in texts.items()}
    properties["type"]["pattern"] = f"^{answers.TYPE.replace('.', '[.]')}[a-z_0-9]+$"
    properties["status"] = {"type": "integer", "minimum": 400, "maximum": 599}
    return {
        "type": "object",
        "description": "RFC 9457, with `code` and `remedy`",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _text(description: str, **more: Any) -> Part:
    return {"type": "string", "description": description, **more}


def _header(description: str, **schema: Any) -> Part:
    return {"description": description, "schema": {"type": "string", **schema}}


def _refusal(status: int, names: Iterable[str]) -> Part:
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
        answer["headers"] = {"WWW-Authenticate": _header("RFC 6750")}
    if status in {429, 503}:
        answer["headers"] = {
            "Retry-After": _header("seconds until it may work", pattern="^[0-9]+$")
        }
    return answer


def _responses(own: Codes, **good: Part) -> Part:
    """Return the answers of an operation; those of any request are referred to."""
    refused = {
        str(status): _refusal(status, (*own[status], *_ANY.get(status, ())))
        if status in own
        else {"$ref": f"#/components/responses/Any{status}"}
        for status in sorted(own.keys() | _ANY.keys())
    }
    return {name.removeprefix("s"): answer for name, answer in good.items()} | refused


def _parameter(name: str, where: str, text: str, schema: Part, **more: Any) -> Part:
    return {"name": name, "in": where, "description": text, "schema": schema, **more}


def _stream() -> Part:
    names = {
        "type": "array",
        "items": {"type": "string", "pattern": f"^{NAME}$"},
        "maxItems": MAX_FIELDS // 4,
    }
    cursor = {"type": "string"}
    return {
        "operationId": "subscribe",
        "tags": ["events"],
        "summary": "Subscribe: Server-Sent Events, without an end",
        "description": "Begins with what was missed after the cursor, then `hello`; or "
        "with `resync` where that is not known any more. `update_available` has an "
        "Announcement as its data, `metadata` one without a product. A comment comes "
        "with each heartbeat. The server ends streams now and then; `retry:` says when "
        "to come back.",
        "parameters": [
            _parameter("product", "query", "only these; may be repeated", names),
            _parameter("channel", "query", "only these; may be repeated", names),
            _parameter(
                "Last-Event-ID", "header", "id of the last event that was seen", cursor
            ),
            _parameter(
                "lastEventId",
                "query",
                "the same, where no header can be set; the header counts",
                cursor,
            ),
        ],
        "security": [{}, {"token": []}],
        "responses": _responses(
            _STREAM,
            s200={
                "description": "The stream. With `serve --private` it needs a token "
                "with the scope `read`.",
                "content": {STREAM_TYPE: {}},
            },
        ),
    }


def _announce() -> Part:
    schema = {"$ref": "#/components/schemas/Announced"}
    return {
        "operationId": "announce",
        "tags": ["events"],
        "summary": "Announce a release, or metadata",
        "description": "The scope `publish:PRODUCT/CHANNEL` is needed; for metadata "
        "alone any scope to publish. An answer that was lost is had again with the "
        "same key and body.",
        "parameters": [
            _parameter(
                "Idempotency-Key",
                "header",
                "the same when it is sent again",
                {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": KEY_LIMIT,
                    "pattern": "^[!-~]+$",
                },
                required=True,
            )
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Announcement"}
                }
            },
        },
        "security": [{"token": []}],
        "responses": _responses(
            _ANNOUNCE,
            s201={
                "description": "It is kept, and on its way to the streams",
                "headers": {
                    "Idempotent-Replayed": _header(
                        "it had been announced before", enum=["true"]
                    )
                },
                "content": {"application/json": {"schema": schema}},
            },
        ),
    }


def _report() -> Part:
    return {
        "operationId": "report",
        "tags": ["reports"],
        "summary": "Report how deployments ended",
        "description": "Where `serve --reports` takes them; with `--reports token` the "
        "scope `report:PRODUCT` is needed. A report counts once, by its id: what got "
        "no answer is sent again.",
        "parameters": [
            _parameter(
                "Reports-Age",
                "header",
                "seconds since each was made, in order, with commas between",
                {"type": "string", "maxLength": 2000, "pattern": "^[0-9.,]*$"},
            )
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": report.MOST,
                        "items": {"$ref": "#/components/schemas/Report"},
                    }
                }
            },
        },
        "security": [{}, {"token": []}],
        "responses": _responses(_REPORT, s202={"description": "They are kept"}),
    }


def _fleet() -> dict[str, Part]:
    text = {"type": "string", "maxLength": 64}
    product, channel, version = (
        _parameter(name, "path", "which one", text, required=True)
        for name in ("product", "channel", "version")
    )
    count = {"type": "integer"}
    release: Part = {"$ref": "#/components/schemas/Release"}
    followed = {
        "type": "object",
        "properties": {
            "product": {"type": "string"},
            "channel": {"type": "string"},
            "machines": count,
        },
    }
    page = [
        _parameter(
            "limit",
            "query",
            "releases at most",
            {"type": "integer", "minimum": 1, "maximum": MOST_RELEASES},
        ),
        _parameter(
            "before",
            "query",
            "only releases with a smaller `seq`",
            {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER},
        ),
    ]
    return {
        FLEET_PATH: _reading("fleet", "Channels that machines follow", [], {
            "channels": {"type": "array", "items": followed}
        }),
        CHANNEL_PATH: _reading(
            "channel", "Releases of a channel, newest first", [product, channel, *page],
            {"releases": {"type": "array", "items": release}},
        ),
        f"{CHANNEL_PATH}/releases/{{version}}": _reading(
            "release", "One release, with histograms and hours",
            [product, channel, version],
            {"histograms": {"type": "array"}, "hours": {"type": "array"}},
        ),
    }  # fmt: skip


def _reading(name: str, summary: str, parameters: list[Part], more: Part) -> Part:
    schema = {
        "type": "object",
        "properties": {"schema": {"const": 1}, **more},
        "required": ["schema", *more],
    }
    return {
        "operationId": f"read_{name}",
        "tags": ["reports"],
        "summary": summary,
        "description": "Where `serve --reports` takes reports. The scope `fleet:read` "
        "is needed.",
        "parameters": parameters,
        "security": [{"token": []}],
        "responses": _responses(
            _FLEET,
            s200={
                "description": "What is known",
                "content": {"application/json": {"schema": schema}},
            },
        ),
    }


def _files() -> dict[str, Part]:
    """Return the operations of the repository's files, by path."""
    name = {"type": "string", "pattern": "^[A-Za-z0-9._~+-]+$"}
    hexes = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    first = {"type": "string", "pattern": "^[0-9a-f]{2}$"}
    shapes: dict[str, tuple[str, str, Part]] = {
        f"{layout.METADATA}/{{file}}": ("metadata", "application/json", {"file": name}),
        f"{layout.TARGETS}/{{product}}/{{folder}}/{{file}}": (
            "channel",
            "application/json",
            {"product": name, "folder": name, "file": name},
        ),
        f"{layout.TARGETS}/{{product}}/{{folder}}/{{version}}/{{file}}": (
            "manifest",
            "application/json",
            {"product": name, "folder": name, "version": name, "file": name},
        ),
        f"{layout.BLOB_FOLDER}/{{first}}/{{digest}}": (
            "blob",
            "application/octet-stream",
            {"first": first, "digest": hexes},
        ),
    }
    return {
        path: {
            "operationId": f"get_{kind}",
            "tags": ["repository"],
            "summary": f"A {kind} file; ranges and conditions as in RFC 9110",
            "parameters": [
                _parameter(key, "path", "", schema, required=True)
                for key, schema in keys.items()
            ],
            "security": [{}, {"token": []}],
            "responses": _responses(
                _FILES,
                s200={
                    "description": "The file",
                    "headers": {
                        "Cache-Control": _header("for ever, or to be asked each time"),
                        "ETag": _header("the hash, of files that are named by it"),
                    },
                    "content": {media_type: {}},
                },
                s206={
                    "description": "The part that was asked for",
                    "content": {"application/octet-stream": {}},
                },
                s304={"description": "The client has it"},
            ),
        }
        for path, (kind, media_type, keys) in shapes.items()
    }


def _probe(name: str, summary: str, refused: Codes) -> Part:
    return {
        "operationId": name,
        "tags": ["operation"],
        "summary": summary,
        "responses": _responses(
            refused,
            s200={
                "description": "It does",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
        ),
    }


def _metrics() -> Part:
    return {
        "operationId": "metrics",
        "tags": ["operation"],
        "summary": "Counters, for Prometheus",
        "description": f"`Accept` decides: {metrics.PLAIN}, or {metrics.OPEN} where "
        "that is named and as welcome. The scope `operate` is needed, unless `serve "
        "--metrics` says otherwise.",
        "security": [{}, {"token": []}],
        "responses": _responses(
            _METRICS,
            s200={
                "description": "All of them",
                "content": {
                    kind: {"schema": {"type": "string"}}
                    for kind in (metrics.PLAIN, metrics.OPEN)
                },
            },
        ),
    }


def _itself() -> Part:
    return {
        "operationId": "describe",
        "tags": ["operation"],
        "summary": "This document",
        "responses": _responses(
            {},
            s200={
                "description": "OpenAPI 3.1",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
        ),
    }
