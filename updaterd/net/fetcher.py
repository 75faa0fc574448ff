# SPDX-License-Identifier: Apache-2.0
"""HTTP for code that waits: whole-request deadlines, byte limits, no surprises."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Self

from updaterd.core.rate import Rate
from updaterd.core.text import public_url
from updaterd.errors import TransientError
from updaterd.net import addresses
from updaterd.net.addresses import USER_AGENT, origin_of, require_secure
from updaterd.net.answer import Answer, Asking, Stream
from updaterd.net.body import Body, ShortAnswerError
from updaterd.net.failures import (
    HttpError,
    MisbehavedError,
    NotFoundError,
    not_in_time,
    too_much,
    too_slow,
)
from updaterd.net.plain import Plain
from updaterd.net.proxies import environment_proxies

DEADLINE_S = 30.0
"""Seconds a small request may take, from connecting to its last byte."""
WINDOW_S = 30.0
MIN_RATE = 1024
"""Bytes per second; a blob that comes slower is given up and resumed later."""
MAX_REDIRECTS = 3


class Fetcher:
    """HTTP for code that waits: one client, whole-request deadlines, byte limits.

    What goes past every proxy goes by `plain`; httpx is loaded where one is given or
    named by the environment. Not for use by two threads at once, nor inside a loop.

    Args:
        headers: sent only to `origin`, when that is given: a mirror must not see
            the repository's credentials.
        headers_file: more of them, see `addresses.read_headers`.
        token_file: of an enrolled machine; a header that says who asks is stronger.
        ca_file: PEM, replaces the system's CAs.
        proxy: address of the proxy.
        redirect_hosts: other hosts that `stream` may be redirected to, without
            credentials, as `redirects.allows` takes them.
        origin: address whose scheme, host and port the headers are for.
        deadline_s: seconds for a small request, where a call does not say.
        window_s: seconds of waiting over which a minimum rate is judged.
        way: carries the requests, in place of a network: `folder.Folder`.
        max_rate: bytes of bodies a second, over everything that is fetched; None:
            as fast as it comes. No deadline counts the waits that this makes.
        clock: seconds, never going back.
        pause: waits so many of them.

    Raises:
        BrokenError: headers file, CA file or proxy cannot be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        *,
        headers: Mapping[str, str] | None = None,
        headers_file: PurePath | None = None,
        token_file: PurePath | None = None,
        ca_file: PurePath | None = None,
        proxy: str | None = None,
        origin: str | None = None,
        redirect_hosts: Collection[str] = (),
        deadline_s: float = DEADLINE_S,
        window_s: float = WINDOW_S,
        max_rate: int | None = None,
        way: Asking | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = Rate(max_rate, clock())
        self._clock = clock
        self._pause = pause
        self.deadline_s = deadline_s
        self._window_s = window_s
        self._headers = dict(headers or {})
        if headers_file is not None:
            self._headers.update(addresses.read_headers(headers_file))
        if "authorization" not in map(str.lower, self._headers):
            self._headers.update(addresses.token_headers(token_file, origin or ""))
        self._origin = origin_of(origin) if origin else None
        self._redirect_hosts = redirect_hosts
        self._way = way or _way(ca_file, proxy)
        self.requests = 0
        self.received = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections; may be called twice."""
        self._way.close()

    def get(
        self,
        url: str,
        *,
        limit: int,
        deadline_s: float | None = None,
        length: int | None = None,
    ) -> bytes:
        """Return the body at `url`; an answer that breaks is continued by Range.

        Args:
            url: https, or http to a loopback address.
            limit: largest accepted body in bytes.
            deadline_s: seconds for everything, redirects and body included; None:
                the fetcher's.
            length: bytes of the file, where a hash was signed with it, which the
                caller compares.

        Raises:
            NotFoundError: 404 or 403.
            HttpError: any other status than 200.
            MisbehavedError: more than `limit`, an encoded body, a redirect to
                another origin.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """  # noqa: DOC501  one raised through too_much
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        until = time.monotonic() + deadline_s
        answer = self._open(url, {}, deadline_s)
        body = Body(
            answer,
            url,
            start=0,
            end=length,
            reopen=self._reopen(url, None),
            by_hash=length is not None,
        )
        try:
            data = bytearray()
            # One that ends in good order is another file as likely as a cut one: the
            # caller's hash tells, and calls it what it is.
            with suppress(ShortAnswerError):
                while chunk := body.next(_remaining(url, until)):
                    data += chunk
                    if len(data) > limit:
                        raise too_much(url, limit)
                    until += self._pay(len(chunk))
            return bytes(data)
        finally:
            body.close()

    def _reopen(
        self, url: str, end: int | None, hosts: Collection[str] | None = None
    ) -> Callable[[int, str | None, float], Answer]:
        last = "" if end is None else str(end - 1)

        def reopen(at: int, tag: str | None, patience_s: float) -> Answer:
            headers = {"Range": f"bytes={at}-{last}"}
            tagged = headers | ({"If-Range": tag} if tag else {})
            return self._open(url, tagged, patience_s, hosts)

        return reopen

    def _pay(self, came: int) -> float:
        """Wait until what came is within the rate; return how long it was."""
        self.received += came
        seconds = self._rate.take(came, self._clock())
        if seconds > 0:
            self._pause(seconds)
        return seconds

    def post(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes]:
        """Return status and body (64 KiB at most) of the answer to a POST of JSON.

        Raises:
            MisbehavedError: more than the limit, or an encoded body.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """
        status, _, answer = self.exchange(url, body, headers=headers)
        return status, answer

    def exchange(
        self,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        within_s: float = math.inf,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers (names in lower case) and body; else as `post`.

        Args:
            url: as there.
            body: as there.
            headers: as there.
            within_s: what the caller has left, where that is less than `deadline_s`.

        Raises:
            too_much: more than 64 KiB.
        """
        deadline_s = min(self.deadline_s, within_s)
        until = time.monotonic() + deadline_s
        sent = {"Content-Type": "application/json", **headers}
        answer = self._send("POST", url, sent, deadline_s, body)
        try:
            got = bytearray()
            while chunk := answer.read(_remaining(url, until)):
                got += chunk
                if len(got) > 65536:
                    raise too_much(url, 65536)
            return answer.status, answer.headers, bytes(got)
        finally:
            answer.close()

    @contextmanager
    def stream(  # noqa: PLR0913 - what to ask for, and when to give up
        self,
        url: str,
        *,
        start: int = 0,
        end: int | None = None,
        length: int | None = None,
        if_range: str | None = None,
        min_rate: int = MIN_RATE,
    ) -> Iterator[Stream]:
        """Yield the answer for `url` from byte `start` on.

        A body that breaks off is continued, as long as each answer brings something
        (`net/body.py`): the caller compares the whole with a hash.

        Args:
            url: https, or http to a loopback address.
            start: first byte wanted; the answer may be 200 with all of them.
            end: the byte after the last one wanted; None: to the end.
            length: bytes of the whole file, where it is known.
            if_range: strong `ETag` of what is already here (RFC 9110 13.1.5).
            min_rate: bytes per second below which a window of `window_s` seconds
                of waiting gives up; the caller's own pauses do not count. Until
                the headers are complete, `deadline_s` counts.

        Raises:
            HttpError: neither 200 nor 206; 416 when `start` is past the end.
            ShortAnswerError: it ended before the file did.
            MisbehavedError: an encoded body, a redirect to another origin, or
                slower than `min_rate`.
            TransientError: no connection, or the deadline passed.
            BrokenError: the address is neither https nor loopback.
        """
        headers = {}
        if start or end is not None:
            last = "" if end is None else str(end - 1)
            headers["Range"] = f"bytes={start}-{last}"
            if if_range:
                headers["If-Range"] = if_range
        answer = self._open(url, headers, self.deadline_s, self._redirect_hosts)
        is_part = answer.status == 206
        body = Body(
            answer,
            url,
            start=start if is_part else 0,
            end=end if is_part and end is not None else length,
            reopen=self._reopen(url, end, self._redirect_hosts),
            by_hash=True,
        )
        try:
            yield Stream(
                status=answer.status,
                headers=answer.headers,
                chunks=self._chunks(body, url, min_rate),
            )
        finally:
            body.close()

    def _chunks(self, body: Body, url: str, min_rate: int) -> Iterator[bytes]:
        waited, came = 0.0, 0
        while True:
            before = time.monotonic()
            try:
                chunk = body.next(self._window_s - waited)
            except TransientError as error:
                if error.code == "timeout":
                    raise too_slow(url) from error
                raise
            if not chunk:
                return
            waited += time.monotonic() - before
            came += len(chunk)
            self._pay(len(chunk))
            yield chunk
            if waited >= self._window_s / 2:
                if came < waited * min_rate:
                    raise too_slow(url)
                waited, came = 0.0, 0

    def _open(
        self,
        url: str,
        headers: dict[str, str],
        patience_s: float,
        hosts: Collection[str] | None = None,
    ) -> Answer:
        # `hosts`: see `redirects.next_hop`
        until = time.monotonic() + patience_s
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._send(
                "GET", at, headers, _remaining(url, until), wanted_url=url
            )
            if answer.status not in {301, 302, 303, 307, 308}:
                return _checked(answer, at)
            answer.close()
            from updaterd.net.redirects import (  # noqa: PLC0415 - few servers redirect
                next_hop,
            )

            at = next_hop(at, answer.headers.get("location", ""), hosts)
        raise MisbehavedError(
            f"{public_url(url):.200} redirects in circles", code="redirects"
        )

    def _send(  # noqa: PLR0913 # what a request is made of
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        patience_s: float,
        body: bytes = b"",
        *,
        wanted_url: str = "",
    ) -> Answer:
        require_secure(url)
        # What one origin is trusted with, none that it names is.
        is_own = origin_of(url) == (self._origin or origin_of(wanted_url or url))
        sent = {
            "User-Agent": USER_AGENT,
            **(self._headers if is_own else {}),
            "Accept-Encoding": "identity",
            **headers,
        }
        self.requests += 1
        return self._way.ask(method, url, sent, body, patience_s)


def _way(ca_file: PurePath | None, proxy: str | None) -> Asking:
    """Return what carries the requests.

    Raises:
        BrokenError: CA file or proxy cannot be used.
    """
    if proxy is None and not environment_proxies().addresses:
        return Plain(ca_file=ca_file)
    from updaterd.net.through import Through  # noqa: PLC0415 - loads httpx

    return Through(ca_file=ca_file, proxy=proxy)


def _remaining(url: str, until: float) -> float:
    """Return the seconds until then.

    Raises:
        not_in_time: there are none.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise not_in_time(url)
    return seconds


def _checked(answer: Answer, url: str) -> Answer:
    status = answer.status
    if status in {200, 206} and "content-encoding" not in answer.headers:
        return answer
    answer.close()
    if status in {403, 404}:
        raise NotFoundError(status, url)
    if status not in {200, 206}:
        raise HttpError(status, url)
    raise MisbehavedError(
        f"{public_url(url):.200} is compressed, although the request forbade that",
        do="let the server or proxy send metadata and blobs without compression",
        code="content_encoding",
    )
