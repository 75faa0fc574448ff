# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of taking reports, and of what they come to."""

from updaterd.core import report
from updaterd.core.json_fields import MAX_INTEGER
from updaterd.core.report import CHANNEL_PATH, FLEET_PATH, RELEASE_PATH
from updaterd.server.http.openapi.forms import Codes, Part, parameter, responses
from updaterd.server.http.reports import MOST_RELEASES
from updaterd.server.http.reports import STATUS as REPORT_STATUS

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


def report_operation() -> Part:
    """Return what taking reports is."""
    return {
        "operationId": "report",
        "tags": ["reports"],
        "summary": "Report how deployments ended",
        "description": "Where `serve --reports` takes them; with `--reports token` the "
        "scope `report:PRODUCT` is needed. A report counts once, by its id: what got "
        "no answer is sent again.",
        "parameters": [
            parameter(
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
        "responses": responses(_REPORT, s202={"description": "They are kept"}),
    }


def fleet_operations() -> dict[str, Part]:
    """Return the operations that read what reports come to, by path."""
    text = {"type": "string", "maxLength": 64}
    product, channel, version = (
        parameter(name, "path", "which one", text, required=True)
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
        parameter(
            "limit",
            "query",
            "releases at most",
            {"type": "integer", "minimum": 1, "maximum": MOST_RELEASES},
        ),
        parameter(
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
        RELEASE_PATH: _reading(
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
        "responses": responses(
            _FLEET,
            s200={
                "description": "What is known",
                "content": {"application/json": {"schema": schema}},
            },
        ),
    }
