# SPDX-License-Identifier: Apache-2.0
"""The console's door: who is let in, and how one signs in and out."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs, quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from updaterd.log.repeats import Repeats
from updaterd.server.client_address import Proxies, limit_key
from updaterd.server.console.rendering import HEADERS, page
from updaterd.server.console.sessions import COOKIE, LASTS_S, Sessions
from updaterd.server.tries import AWAY_S

ROOT = "/console"
LOGIN = f"{ROOT}/login"
_MOST_BODY = 4096
_BODY_S = 10.0

Handler = Callable[[Request], Awaitable[Response]]


class Door:
    """Lets in whoever has a cookie, and gives one for a token.

    Args:
        sessions: gives out cookies, and reads them.
        proxies: whose X-Forwarded-For and X-Forwarded-Proto are believed.
        is_tls: this process speaks TLS itself.
    """

    def __init__(self, sessions: Sessions, *, proxies: Proxies, is_tls: bool) -> None:
        self._sessions = sessions
        self._proxies = proxies
        self._is_tls = is_tls
        self._repeats = Repeats()

    def guard(self, handler: Handler) -> Handler:
        """Return a page that only who is signed in sees; others are asked first."""

        async def answer(request: Request) -> Response:
            if self.holder(request) is None:
                target = request.url.path
                if request.url.query:
                    target += f"?{request.url.query}"
                return go(f"{LOGIN}?{urlencode({'next': target})}")
            return await handler(request)

        return answer

    def holder(self, request: Request) -> str | None:
        """Return the id of the token that is signed in; None: nobody is."""
        token = self._sessions.holder(request.cookies.get(COOKIE, ""))
        return None if token is None else token.id

    async def login(self, request: Request) -> Response:
        """Answer with the form, and to it."""
        if request.method != "POST":
            return self._ask(_safe(request.query_params.get("next", "")))
        if _is_of_another_site(request):
            return self._ask("", 403, "This form was sent by another site.")
        peer = request.client.host if request.client else ""
        address = self._proxies.client_of(peer, request.scope["headers"])
        key = limit_key(address)
        if not self._sessions.tries.admit(key):
            return self._ask("", 429, f"Too many tries. Wait {AWAY_S} seconds.")
        fields = parse_qs((await _body(request)).decode("utf-8", "replace"))
        target = _safe(fields.get("next", [""])[0])
        cookie = self._sessions.begin(fields.get("token", [""])[0].strip())
        if cookie is None:
            self._repeats.warning("console_refused", alike=address, address=address)
            text = "This token does not exist, or lacks the scope fleet:read."
            return self._ask(target, 403, text)
        self._sessions.tries.forgive(key)
        answer = go(target)
        answer.set_cookie(
            COOKIE, cookie, max_age=LASTS_S, path=ROOT, httponly=True,
            samesite="strict", secure=self._is_secure(request, peer),
        )  # fmt: skip
        return answer

    def _is_secure(self, request: Request, peer: str) -> bool:
        forwarded = request.headers.get("x-forwarded-proto", "")
        is_proxied = self._proxies.trust(peer) and forwarded == "https"
        return self._is_tls or is_proxied

    def _ask(self, target: str, status: int = 200, text: str = "") -> Response:
        headers = {"retry-after": str(AWAY_S)} if status == 429 else {}
        return page(
            "login.html", status=status, headers=headers, is_in=False,
            target=target, text=text,
        )  # fmt: skip

    async def logout(self, request: Request) -> Response:
        """Forget who was signed in."""
        if _is_of_another_site(request):  # it needs no cookie to have one taken away
            return self._ask("", 403, "This form was sent by another site.")
        answer = go(LOGIN)
        answer.delete_cookie(COOKIE, path=ROOT, httponly=True, samesite="strict")
        return answer


def go(target: str) -> Response:
    """Return an answer that leads to a page of ours."""
    return RedirectResponse(target, HTTPStatus.SEE_OTHER, HEADERS)


def _is_of_another_site(request: Request) -> bool:
    """Tell whether a form was sent by a page of another site, as the browser says.

    Browsers say it over https and to loopback; over plain http whoever is on the way
    sends and sees what he likes anyhow.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    return site not in {"same-origin", "none"}


def _safe(target: str) -> str:
    """Return where to go after signing in: a page of the console, and no other."""
    is_ours = target.startswith(f"{ROOT}/") and "\\" not in target
    return quote(target, safe="/?=&%.-_~+") if is_ours else f"{ROOT}/"


async def _body(request: Request) -> bytes:
    """Return a small body.

    Raises:
        HTTPException: it is too large, or does not come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BODY:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    return bytes(body)
