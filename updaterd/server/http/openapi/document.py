# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of the feed server, as `/openapi.json` answers it.

Limits, names, statuses and codes are read from the modules that enforce them; what
stands here by itself is prose and form. tests/server/test_openapi.py holds that a body
is taken exactly when its schema says so, and that a real server answers nothing else.
"""

import json
from functools import cache

from updaterd import __version__
from updaterd.core.enrolment import ENROLL_PATH
from updaterd.server.http import answers
from updaterd.server.http.openapi.enroll import enroll_operation
from updaterd.server.http.openapi.events import announce_operation, stream_operation
from updaterd.server.http.openapi.files import file_operations
from updaterd.server.http.openapi.fleet import fleet_operations, report_operation
from updaterd.server.http.openapi.forms import ANY, Part, refusal, responses
from updaterd.server.http.openapi.operation import (
    READY,
    metrics_operation,
    probe_operation,
)
from updaterd.server.http.openapi.reports import release_schema, report_schema
from updaterd.server.http.openapi.schemas import (
    announced_schema,
    announcement_schema,
    problem_schema,
)
from updaterd.server.http.reports import (
    REPORTS_PATH,
)
from updaterd.server.streams.request import EVENTS_PATH

PATH = "/openapi.json"


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
            EVENTS_PATH: {"get": stream_operation(), "post": announce_operation()},
            **{f"/repo/{path}": {"get": op} for path, op in file_operations().items()},
            ENROLL_PATH: {"post": enroll_operation()},
            REPORTS_PATH: {"post": report_operation()},
            **{path: {"get": op} for path, op in fleet_operations().items()},
            "/healthz": {
                "get": probe_operation("alive", "Whether the process turns", {})
            },
            "/readyz": {
                "get": probe_operation(
                    "ready", "Whether streams would be taken now", READY
                )
            },
            "/metrics": {"get": metrics_operation()},
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
                "Announced": announced_schema(),
                "Problem": problem_schema(),
                "Report": report_schema(),
                "Release": release_schema(),
            },
            "responses": {
                f"Any{status}": refusal(status, names) for status, names in ANY.items()
            },
        },
    }


def _itself() -> Part:
    return {
        "operationId": "describe",
        "tags": ["operation"],
        "summary": "This document",
        "responses": responses(
            {},
            s200={
                "description": "OpenAPI 3.1",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
        ),
    }
