# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of streams and announcements."""

from updaterd.core.names import NAME
from updaterd.server.http.announce import KEY_LIMIT, STATUS
from updaterd.server.http.openapi.forms import Codes, Part, header, parameter, responses
from updaterd.server.streams.request import MAX_FIELDS, STREAM_TYPE

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


def stream_operation() -> Part:
    """Return what a subscription is."""
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
            parameter("product", "query", "only these; may be repeated", names),
            parameter("channel", "query", "only these; may be repeated", names),
            parameter(
                "Last-Event-ID", "header", "id of the last event that was seen", cursor
            ),
            parameter(
                "lastEventId",
                "query",
                "the same, where no header can be set; the header counts",
                cursor,
            ),
        ],
        "security": [{}, {"token": []}],
        "responses": responses(
            _STREAM,
            s200={
                "description": "The stream. With `serve --private` it needs a token "
                "with the scope `read`.",
                "content": {STREAM_TYPE: {}},
            },
        ),
    }


def announce_operation() -> Part:
    """Return what an announcement is."""
    schema = {"$ref": "#/components/schemas/Announced"}
    return {
        "operationId": "announce",
        "tags": ["events"],
        "summary": "Announce a release, or metadata",
        "description": "The scope `publish:PRODUCT/CHANNEL` is needed; for metadata "
        "alone any scope to publish. An answer that was lost is had again with the "
        "same key and body.",
        "parameters": [
            parameter(
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
        "responses": responses(
            _ANNOUNCE,
            s201={
                "description": "It is kept, and on its way to the streams",
                "headers": {
                    "Idempotent-Replayed": header(
                        "it had been announced before", enum=["true"]
                    )
                },
                "content": {"application/json": {"schema": schema}},
            },
        ),
    }
