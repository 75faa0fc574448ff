# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/enroll`: a machine shows a one-time code, and its token counts from then.

Nothing secret is in the answer: the machine made the token, and sent its hash.
"""

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from updaterd.core.enrolment import MAX_BODY, Granted, parse_asked
from updaterd.errors import MalformedError, UpdaterError
from updaterd.log import get
from updaterd.log.repeats import Repeats
from updaterd.server.client_address import Proxies
from updaterd.server.enrolment.codes import RefusedCodeError
from updaterd.server.http.answers import problem, problem_of, unavailable
from updaterd.server.http.bodies import GoneError, whole
from updaterd.server.tokens import Tokens
from updaterd.server.tries import AWAY_S, Tries

STATUS = {
    "code_unknown": 403,
    "code_expired": 403,
    "code_used": 409,
    "code_elsewhere": 409,
    "token_taken": 409,
    "too_many_tokens": 503,
}

log = get()


class Enroll:
    """Answers `POST /v1/enroll`.

    Args:
        tokens: those of the server.
        proxies: whose X-Forwarded-For is believed.
        now: seconds since 1970.
        clock: seconds on a steady clock.
    """

    def __init__(
        self,
        tokens: Tokens,
        *,
        proxies: Proxies,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._proxies = proxies
        self._now = now
        self._tries = Tries(clock)
        self._repeats = Repeats()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            response = problem(405, "method_not_allowed", "POST", {"allow": "POST"})
        else:
            response = await self._answer(scope, receive)
        if response.status_code >= 400:
            response.headers["connection"] = "close"  # its body may be on the way
        response.headers["cache-control"] = "no-store"
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        peer = scope["client"][0] if scope["client"] else ""
        address = self._proxies.client_of(peer, scope["headers"])
        if not self._tries.admit(address):
            self._refused("too_many_tries", address)
            return problem(
                429,
                "too_many_tries",
                "wrong codes came from this address, or from many",
                {"retry-after": str(AWAY_S)},
            )
        try:
            claim = parse_asked(
                await whole(
                    dict(scope["headers"]),
                    receive,
                    subject="the request",
                    most=MAX_BODY,
                )
            )
            # the disk is waited for in another thread
            token, is_new = await asyncio.to_thread(
                self._tokens.enroll, claim, now=int(self._now())
            )
        except (TimeoutError, GoneError):
            return problem(408, "body_timeout", "the body did not come in time")
        except RefusedCodeError as error:
            self._refused(error.code, address, error.id)
            status = STATUS[error.code]
            headers = {"retry-after": "3600"} if status == 503 else None
            return problem_of(status, error, headers)
        except MalformedError as error:
            return problem_of(413 if error.code == "too_large" else 400, error)
        except UpdaterError as error:
            log.error("enrolment_failed", error=error.cause, do=error.do)  # noqa: TRY400  the text has it all
            return unavailable(error.code)
        self._tries.forgive(address)
        log.info(
            "enrolled",
            holder=token.id,
            name=token.name,
            scopes=list(token.scopes),
            again=not is_new,
        )
        granted = Granted(id=token.id, name=token.name, scopes=token.scopes)
        status = 201 if is_new else 200
        return Response(granted.encode(), status, media_type="application/json")

    def _refused(self, code: str, address: str, ident: str = "") -> None:
        self._repeats.warning(
            "enrolment_refused", alike=code, code=code, address=address, holder=ident
        )
