# SPDX-License-Identifier: Apache-2.0
"""Errors as `application/problem+json` (RFC 9457), from every door of the server.

`type`, `title` and `remedy` come from the code's row in `core/codes`; `detail` says
what was wrong this time. What a library answers by itself goes through `Problems`, so
that no 4xx or 5xx has another form.
"""

import json
from functools import lru_cache
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from updaterd.core import codes
from updaterd.core.identity import IssuerDownError, RefusedIdentityError
from updaterd.errors import UpdaterError

MEDIA_TYPE = "application/problem+json"
TYPE = "tag:updaterd.example.org,2026:problem/"
"""What a code's `type` begins with: a name that is the same on every server, and no
address (docs/codes.md has what stands behind it)."""

_BY_STATUS = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    416: "range_not_satisfiable",
    500: "unexpected",
}


@lru_cache(maxsize=64)
def problem_body(status: int, code: str, detail: str = "", remedy: str = "") -> bytes:
    """Return the body of an error.

    Args:
        status: of the answer.
        code: of `core/codes`.
        detail: what was wrong this time; "" where the code says it all.
        remedy: what to do this time; "" for what the code's row says.
    """
    row = codes.find(code)
    title = row.meaning if row else HTTPStatus(status).phrase
    return json.dumps({
        "type": TYPE + code,
        "title": title,
        "status": status,
        "detail": detail or title,
        "code": code,
        "remedy": remedy or (row.remedy if row else ""),
    }).encode()


def problem(
    status: int,
    code: str,
    detail: str = "",
    headers: dict[str, str] | None = None,
    remedy: str = "",
) -> Response:
    """Return an error as an answer; see `problem_body`."""
    return Response(
        problem_body(status, code, detail, remedy),
        status,
        {"cache-control": "no-store", **(headers or {})},
        MEDIA_TYPE,
    )


def problem_of(
    status: int, error: UpdaterError, headers: dict[str, str] | None = None
) -> Response:
    """Return an error of ours as an answer."""
    parts = (error.cause, *error.details, error.means)
    detail = ". ".join(part.rstrip(".") for part in parts if part)
    return problem(status, error.code, detail, headers, error.do)


def identity_refused(error: RefusedIdentityError | IssuerDownError) -> Response:
    """Return why an identity token got nobody in (RFC 6750, 3.1)."""
    if isinstance(error, IssuerDownError):  # why is for our log, which has it
        return problem(503, error.code, headers={"retry-after": "30"})
    headers = {"www-authenticate": 'Bearer error="invalid_token"'}
    return problem_of(401, error, headers)


def unavailable(code: str) -> Response:
    """Return 503 for a fault on this side: why, and where, is for our log only."""
    return problem(
        503,
        code,
        "the server cannot answer this now; its log says why",
        {"retry-after": "5"},
        "try again later",
    )


class Problems:
    """Gives every error the one form, also those of libraries and of our own faults.

    Args:
        app: answers requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            Exception: what the application raised, after it was answered with 500:
                uvicorn logs it.
        """
        is_begun = is_replaced = False

        async def send_uniformly(message: Message) -> None:
            nonlocal is_begun, is_replaced
            if message["type"] == "http.response.start":
                is_begun = True
                if (other := _in_our_form(message)) is not None:
                    is_replaced = True
                    await other(scope, receive, send)
            if not is_replaced:
                await send(message)

        try:
            await self._app(scope, receive, send_uniformly)
        except Exception:
            if not is_begun:
                await problem(500, "unexpected")(scope, receive, send)
            raise


def _in_our_form(start: Message) -> Response | None:
    """Return what to answer instead of an error in another form; None for the rest."""
    status = start["status"]
    if status < HTTPStatus.BAD_REQUEST:
        return None
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in start["headers"]}
    if headers.get("content-type") == MEDIA_TYPE:
        return None
    headers_left = {
        name: value
        for name, value in headers.items()
        if name not in {"content-type", "content-length", "etag", "last-modified"}
    }
    headers_left["cache-control"] = "no-store"
    return problem(
        status, _BY_STATUS.get(status, f"http_{status}"), headers=headers_left
    )
