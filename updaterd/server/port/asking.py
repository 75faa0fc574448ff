# SPDX-License-Identifier: Apache-2.0
"""May a request have its stream, and what is it answered?"""

from typing import NamedTuple

from updaterd.errors import MalformedError
from updaterd.server.http.access import cors, refusal_headers
from updaterd.server.port.exchange import Exchange
from updaterd.server.port.guard import Guard, Taker
from updaterd.server.port.heads import Heads
from updaterd.server.port.known import Known
from updaterd.server.streams.request import read_request
from updaterd.server.streams.stream import Refusal


class Granted(NamedTuple):
    """A stream that may begin.

    Attributes:
        token: id of the token it was asked with.
        head: of the answer.
    """

    token: str
    head: bytes


def read(exchange: Exchange, guard: Guard, heads: Heads, peer: str) -> Known | bytes:
    """Return what a plain GET of the feed asks for, or the answer that refuses it.

    Args:
        exchange: the GET.
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
    return Known(request, exchange.is_old)


def ask(known: Known, taker: Taker, guard: Guard, heads: Heads) -> Granted | bytes:
    """Return the stream that a request may have, or the whole answer that refuses it.

    Args:
        known: what is asked for.
        taker: who would take the connection over.
        guard: whose options count.
        heads: writes answers.
    """
    request = known.request
    allow = cors(guard.options, request.origin)
    answer = taker.ask(request)
    if isinstance(answer, Refusal):
        if (only_retry := answer.as_stream) is not None:
            return heads.retry(only_retry, allow)
        headers = {**allow, **refusal_headers(answer)}
        return heads.problem(answer.status, answer.code, headers)
    return Granted(answer, heads.stream(allow, old=known.is_old))
