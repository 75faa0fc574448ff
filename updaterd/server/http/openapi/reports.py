# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of reports: the fields are those of `core/report`."""

from updaterd.core import report
from updaterd.core.json_fields import MAX_INTEGER
from updaterd.server.http.openapi.forms import Part
from updaterd.server.reports.contract import CLOCK

_TEXT: dict[str, str] = {
    "id": f"^{report.UUID.pattern}$",
    "machine": f"^{report.MACHINE.pattern}$",
    **dict.fromkeys(("product", "channel", "platform"), f"^{report.NAME.pattern}$"),
    **dict.fromkeys(
        ("updater", "version", "from_version"), f"^{report.VERSION.pattern}$"
    ),
    **dict.fromkeys(("code", "path"), f"^{report.WORD.pattern}$"),
}
_NUMBERS = ("seq", "from_seq", "event_ms", "bytes_fetched", "bytes_full", "lost")
_COUNTS = ("platforms", "tags", "machines", "reports")


def report_schema() -> Part:
    """Return the schema of one report; what it does not know is ignored."""
    properties: Part = {
        "schema": {"const": report.SCHEMA},
        **{name: {"type": "string", "pattern": at} for name, at in _TEXT.items()},
        **{
            name: {"type": "integer", "minimum": 0, "maximum": MAX_INTEGER}
            for name in _NUMBERS
        },
        **{
            name: {"type": "number", "minimum": 0, "maximum": report.LONGEST_S}
            for name in report.PARTS
        },
        "outcome": {"enum": list(report.OUTCOMES)},
        "trigger": {"enum": list(report.TRIGGERS)},
        "tags": {
            "type": "array",
            "maxItems": report.MOST_TAGS,
            "items": {"type": "string", "pattern": f"^{report.TAG.pattern}$"},
        },
    }
    return {
        "type": "object",
        "description": "docs/privacy.md has what each field is",
        "properties": {"schema": properties["schema"]}
        | {name: properties[name] for name in report.FIELDS},
        "required": ["schema", *(n for n in report.FIELDS if n in report.ALWAYS)],
    }


def release_schema() -> Part:
    """Return the schema of what is known of a release."""
    count = {"type": "integer", "minimum": 0}
    seconds = {"type": ["number", "null"]}
    latency = {
        "type": "object",
        "properties": {
            "machines": count,
            **dict.fromkeys(("p50_s", "p95_s", "p99_s"), seconds),
        },
    }
    return {
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            **dict.fromkeys(
                ("seq", "running", "bytes_fetched", "bytes_full", "lost"), count
            ),
            **{
                name: {"type": "object", "additionalProperties": count}
                for name in _COUNTS
            },
            "codes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        **{
                            key: {"type": "string"}
                            for key in ("outcome", "code", "fault")
                        },
                        "machines": count,
                    },
                },
            },
            "latency": {
                "type": "object",
                "properties": dict.fromkeys(CLOCK, latency),
            },
        },
        "required": ["version", "seq", "running", *_COUNTS, "codes", "latency"],
    }
