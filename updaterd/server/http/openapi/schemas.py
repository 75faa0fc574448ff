# SPDX-License-Identifier: Apache-2.0
"""Schemas of an announcement, of its answer, and of a problem."""

import json

from updaterd.core import announcement
from updaterd.core.json_fields import MAX_INTEGER
from updaterd.core.names import NAME, VERSION
from updaterd.server.http import answers
from updaterd.server.http.openapi.forms import Part, text_schema


def announcement_schema() -> Part:
    """Return the schema of a body that `announcement.parse` takes.

    What `tuf` holds is checked beyond it: zlib, metadata, signatures, versions.
    """
    packed = {
        role: text_schema(
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
        "product": text_schema("whose release it is", pattern=f"^{NAME}$"),
        "channel": text_schema("where it is offered", pattern=f"^{NAME}$"),
        "version": text_schema("its label", pattern=f"^{VERSION}$"),
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


def announced_schema() -> Part:
    """Return the schema of the answer to an announcement."""
    return {
        "type": "object",
        "properties": {
            "id": text_schema("of the event, as streams have it"),
            "streams": {
                "type": "integer",
                "minimum": 0,
                "description": "open at this process for its product and channel",
            },
        },
        "required": ["id", "streams"],
        "additionalProperties": False,
    }


def problem_schema() -> Part:
    """Return the schema of every refusal."""
    texts = {
        "type": "names the kind: the same on every server, and no address",
        "title": "what the code means",
        "detail": "what was wrong this time",
        "code": "stable, for programs: docs/codes.md",
        "remedy": "what to do",
    }
    properties: Part = {name: text_schema(text) for name, text in texts.items()}
    properties["type"]["pattern"] = f"^{answers.TYPE.replace('.', '[.]')}[a-z_0-9]+$"
    properties["status"] = {"type": "integer", "minimum": 400, "maximum": 599}
    return {
        "type": "object",
        "description": "RFC 9457, with `code` and `remedy`",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
