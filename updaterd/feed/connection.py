# SPDX-License-Identifier: Apache-2.0
"""One connection to the feed: ask, follow, judge the answer.

WHATWG HTML 9.2.2 and 9.2.3: what is sent, and which answers are event streams.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import PurePath

import httpx

from updaterd.core.retry_after import parse_retry_after
from updaterd.errors import BrokenError
from updaterd.feed.failure import Failure, of_exception, of_status
from updaterd.feed.redirects import REDIRECTS, Hop, RouteError
from updaterd.net.addresses import token_headers

CONNECT_TIMEOUT_S = 10.0

LONGEST_SENT_ID = 4096
_KEEP_ALIVE_S = 45.0  # where the idle timeout is off
_NEVER_SECRET = frozenset({"host", "user-agent", "content-length", "content-type"})


class Connector:
    """Makes connections to one feed, and remembers where it has moved to.

    Args:
        start: the feed as configured.
        headers: the caller's; they stay within the feed's origin.
        token_file: of an enrolled machine, read for each connection.
        json: a body to send, as JSON.
        content: a body to send as it is; at most one of the two is not None.
        client: what speaks HTTP.
        idle_timeout_s: longest silence on an open stream; 0 for no limit.
        header_deadline_s: from connecting to the end of the headers.
        wall: Unix seconds, for Retry-After.
    """

    def __init__(  # noqa: PLR0913 # each is one knob of the subscription
        self,
        start: Hop,
        *,
        headers: Mapping[str, str],
        token_file: PurePath | None,
        json: object,
        content: bytes | str | None,
        client: httpx.AsyncClient,
        idle_timeout_s: float,
        header_deadline_s: float,
        wall: Callable[[], float],
    ) -> None:
        self._start = self._route = start
        self._headers = dict(headers)
        self._token_file = token_file
        self._json = json
        self._content = content
        self._client = client
        self._idle_timeout_s = idle_timeout_s
        self._header_deadline_s = header_deadline_s
        self._wall = wall

    def forget(self) -> None:
        """Ask at the configured address again: "permanent" can be a mistake too."""
        self._route = self._start

    async def connect(self, last_event_id: str) -> httpx.Response | Failure:
        """Return an open event stream, or a 204 answer, or what went wrong.

        Raises:
            BrokenError: a header that no request can carry.
        """
        try:
            async with asyncio.timeout(self._header_deadline_s):
                lasting, response = await self._send(last_event_id)
        except TimeoutError:
            return Failure(
                code="header_timeout",
                text=f"no answer within {self._header_deadline_s:g} seconds",
            )
        except (RouteError, httpx.InvalidURL) as error:
            return Failure(code="redirect", text=str(error), slow=True)
        except httpx.LocalProtocolError as error:
            raise BrokenError(
                f"cannot send the feed's headers: {error}",
                do="correct `headers` or `headers_file`",
                code="bad_header",
            ) from error
        except Exception as error:  # noqa: BLE001 # see of_exception
            return of_exception(error, opened=False)
        failure = self._judge(response)
        if failure is None:
            self._route = lasting  # not before it has shown to be a feed
        if failure is not None or response.status_code == 204:
            await response.aclose()
        else:
            _keep_alive(response, self._idle_timeout_s or _KEEP_ALIVE_S)
        return failure or response

    async def _send(self, last_event_id: str) -> tuple[Hop, httpx.Response]:
        """Ask, and follow redirects; return also how far they were permanent.

        Raises:
            RouteError: a redirect that is not followed.
        """
        hop = lasting = self._route.again()
        while True:
            response = await self._client.send(
                self._request(hop, last_event_id),
                stream=True,
                follow_redirects=False,
                auth=httpx.USE_CLIENT_DEFAULT if hop.home else None,
            )
            if response.status_code not in REDIRECTS:
                return lasting, response
            await response.aclose()
            hop = hop.follow(response.status_code, response.headers.get("location", ""))
            lasting = hop if hop.lasting else lasting

    def _request(self, hop: Hop, last_event_id: str) -> httpx.Request:
        request = self._client.build_request(
            hop.method,
            hop.url,
            headers=self._headers if hop.home else None,
            json=self._json if hop.with_body else None,
            content=self._content if hop.with_body else None,
            timeout=httpx.Timeout(
                connect=CONNECT_TIMEOUT_S,
                read=self._idle_timeout_s or None,
                write=self._header_deadline_s,
                pool=None,
            ),
        )
        if not hop.home:
            # Any header of the client's or the caller's may be a credential.
            for name in request.headers.keys() - _NEVER_SECRET:
                del request.headers[name]
        elif "authorization" not in request.headers:
            request.headers.update(token_headers(self._token_file, str(hop.url)))
        request.headers["Accept"] = "text/event-stream"
        request.headers["Accept-Encoding"] = "identity"
        request.headers["Cache-Control"] = "no-cache"
        request.headers.pop("Last-Event-ID", None)
        if last_event_id and can_be_sent(last_event_id):
            request.headers.encoding = "utf-8"
            request.headers["Last-Event-ID"] = last_event_id
        return request

    def _judge(self, response: httpx.Response) -> Failure | None:
        headers = response.headers
        if response.status_code == 204:
            return None
        if response.status_code != 200:
            after = parse_retry_after(
                headers.get("retry-after", ""),
                date=headers.get("date", ""),
                now=self._wall(),
            )
            return of_status(response.status_code, response.reason_phrase, after)
        # Of several the last counts (Fetch, "extract a MIME type").
        kind = (headers.get_list("content-type") or [""])[-1]
        if kind.partition(";")[0].strip().lower() != "text/event-stream":
            return Failure(
                code="content_type",
                text=f"the answer is {kind!r:.100}, not an event stream",
                slow=True,
            )
        if headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
            # We asked for none; unpacking could be made to fill the memory.
            return Failure(
                code="content_encoding",
                text="the feed sends a compressed stream",
                slow=True,
            )
        return None


def can_be_sent(last_event_id: str) -> bool:
    """Tell whether an id is a header value (RFC 9110 section 5.5), as UTF-8."""
    try:
        raw = last_event_id.encode()
    except UnicodeEncodeError:
        return False
    if len(raw) > LONGEST_SENT_ID or raw != raw.strip(b" \t"):
        return False
    return all(byte >= 0x20 and byte != 0x7F for byte in raw.replace(b"\t", b""))


def _keep_alive(response: httpx.Response, silence_s: float) -> None:
    """Let the kernel notice a peer that vanished, before the idle timeout does.

    That tells a half-open connection from a server that merely says nothing. It
    costs this process no wakeup.
    """
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream is not None else None
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    idle = max(1, int(silence_s / 3))
    every = max(1, idle // 3)
    with contextlib.suppress(OSError):  # not every transport has them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        deadline_ms = 1000 * (idle + 3 * every)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, deadline_ms)
