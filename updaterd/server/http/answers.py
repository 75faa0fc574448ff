# SPDX-License-Identifier: Apache-2.0
"""Errors as JSON: a stable code for programs, a sentence for people."""

from starlette.responses import JSONResponse, Response


def problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """Return an error as JSON: a stable code, and a sentence for people."""
    return JSONResponse(
        {"error": code, "message": message},
        status,
        {"cache-control": "no-store", **(headers or {})},
    )


def unavailable(code: str) -> Response:
    """Return 503 for a fault on this side: why, and where, is for our log only."""
    return problem(
        503,
        code,
        "the server cannot answer this now; its log says why",
        {"retry-after": "5"},
    )
