# SPDX-License-Identifier: Apache-2.0
"""May a request have its stream, and what is it answered?"""

from dataclasses import dataclass

from updaterd.errors import MalformedError
from updaterd.server.http.access import cors, refusal_headers
from updaterd.server.port.exchange import Exchange
from updaterd.server.port.guard import Guard, Taker
from updaterd.server.port.heads import Heads
from updaterd.server.streams.request import StreamRequest, read_request
from updaterd.server.streams.stream import Refusal


@dataclass(frozen=True, slots=True)
class Granted:
    """A stream that may begin.

    Attributes:
        request: what was asked.
        token: id of the token it was asked with.
        head: of the answer.
    """

    request: StreamRequest
    token: str
    head: bytes


def ask(
    exchange: Exchange, taker: Taker, guard: Guard, heads: Heads, peer: str
) -> Granted | bytes:
    """Return the stream that a request may have, or the whole answer that refuses it.

    Args:
        exchange: a plain GET of the feed.
        taker: who would take the connection over.
        guard: whose options and proxies count.
        heads: writes answers.
        peer: address of the client's end.
    """
    try:
        request = read_request(exchange.query, exchange.headers, peer, guard.proxies)
    except MalformedError as error:
        origin = dict(exchange.headers).get(b"origin", b"").decode("latin-1")
        allow = cors(guard.options, origin)
        return heads.problem(400, error.code, allow, error.cause, error.do)
    allow = cors(guard.options, request.origin)
    answer = taker.ask(request)
    if isinstance(answer, Refusal):
        if (only_retry := answer.as_stream) is not None:
            return heads.retry(only_retry, allow)
        headers = {**allow, **refusal_headers(answer)}
        return heads.problem(answer.status, answer.code, headers)
    return Granted(request, answer, heads.stream(allow, old=exchange.is_old))
