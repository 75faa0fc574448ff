# SPDX-License-Identifier: Apache-2.0
"""What the OpenAPI document says of the repository's files."""

from updaterd.core import layout
from updaterd.server.http.openapi.forms import Codes, Part, header, parameter, responses

_FILES: Codes = {
    401: ("token_required",),
    404: ("not_found",),
    416: ("range_not_satisfiable",),
    503: ("downloads_full",),
}


def file_operations() -> dict[str, Part]:
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
                parameter(key, "path", "", schema, required=True)
                for key, schema in keys.items()
            ],
            "security": [{}, {"token": []}],
            "responses": responses(
                _FILES,
                s200={
                    "description": "The file",
                    "headers": {
                        "Cache-Control": header("for ever, or to be asked each time"),
                        "ETag": header("the hash, of files that are named by it"),
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
