# SPDX-License-Identifier: Apache-2.0
"""Where to ask: redirects, which of them last, and who may see the credentials.

Pure. Fetch, "HTTP-redirect fetch" (section 4.4); RFC 9110 section 15.4.
"""

from dataclasses import replace

import httpx

from updaterd.core.dataclass import dataclass

MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PERMANENT = frozenset({301, 308})
_MAY_BECOME_GET = frozenset({301, 302})


class RouteError(ValueError):
    """A redirect that is not followed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One request of the way to the feed.

    Attributes:
        url: whom to ask.
        method: with what; a redirect may turn POST into GET.
        with_body: whether the caller's body still goes along.
        home: no other origin has been on the way: credentials may go along. Once
            away they stay away, also when a redirect leads back.
        lasting: every redirect so far was a permanent one.
        count: redirects so far.
    """

    url: httpx.URL
    method: str
    with_body: bool = True
    home: bool = True
    lasting: bool = True
    count: int = 0

    def again(self) -> "Hop":
        """Return the same place as the first hop of another attempt."""
        return replace(self, lasting=True, count=0)

    def follow(self, status: int, location: str) -> "Hop":
        """Return where the answer `status` with `location` sends us.

        Raises:
            RouteError: too many, no address, not http(s), or from https to http.
        """
        if self.count >= MAX_REDIRECTS:
            raise RouteError(f"more than {MAX_REDIRECTS} redirects")
        url = _target(self.url, location)
        to_get = status == 303 or (status in _MAY_BECOME_GET and self.method == "POST")
        return replace(
            self,
            url=url,
            method="GET" if to_get else self.method,
            with_body=self.with_body and not to_get,
            home=self.home and _origin(url) == _origin(self.url),
            lasting=self.lasting and status in _PERMANENT,
            count=self.count + 1,
        )


def can_be_asked(url: httpx.URL) -> bool:
    """Tell whether an address is http or https, and names a host and no false port."""
    named = url.scheme in {"http", "https"} and url.host != ""
    return named and (url.port is None or 0 < url.port < 2**16)


def _target(base: httpx.URL, location: str) -> httpx.URL:
    try:
        url = base.join(location) if location else None
    except httpx.InvalidURL as error:
        raise RouteError(f"a redirect to {location!r:.200}: {error}") from error
    if url is None:
        raise RouteError("a redirect without a Location")
    if not can_be_asked(url):
        raise RouteError(f"a redirect to {location!r:.200}, not an http address")
    if base.scheme == "https" and url.scheme == "http":
        raise RouteError(f"a redirect from https to plain {location!r:.200}")
    if _origin(url) != _origin(base):
        # Whoever redirects does not choose whom we log in as.
        return url.copy_with(userinfo=b"", fragment=None)
    if base.userinfo and not url.userinfo:
        url = url.copy_with(userinfo=base.userinfo)
    return url.copy_with(fragment=None)


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return url.scheme, url.host, port
