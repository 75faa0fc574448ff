# SPDX-License-Identifier: Apache-2.0
"""Who is signed in to the console: a token of the scope `fleet:read`, and its cookie.

The cookie names the token and a time, under a key that only this process knows: no
secret lies in a browser, a restart signs everybody out, and a revoked token ends at
once whatever cookies are about.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

from updaterd.server.scopes import Token
from updaterd.server.tokens import Tokens
from updaterd.server.tries import Tries

COOKIE = "updaterd_console"
LASTS_S = 12 * 3600
SCOPE = "fleet:read"


class Sessions:
    """Gives out cookies for tokens, and reads them.

    Args:
        tokens: those of the server.
        now: seconds since 1970.
        clock: seconds on a steady clock.
    """

    def __init__(
        self, tokens: Tokens, *, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._tokens = tokens
        self._now = now
        self._key = secrets.token_bytes(32)
        self.tries = Tries(clock)

    def begin(self, secret: str) -> str | None:
        """Return the cookie's value for a token; None where it may not look.

        Raises:
            BrokenError: the tokens cannot be read.
        """
        token = self._tokens.find(secret)
        if token is None or not token.may(SCOPE):
            return None
        return self._sealed(token, int(self._now()) + LASTS_S)

    def holder(self, cookie: str) -> Token | None:
        """Return who is signed in by a cookie; None: nobody, or no longer.

        Raises:
            BrokenError: the tokens cannot be read.
        """
        ident, _, rest = cookie.partition(".")
        ends = rest.partition(".")[0]
        if not (ident.isalnum() and ends.isascii() and ends.isdigit()):
            return None
        token = self._tokens.get(ident)
        if token is None or not token.may(SCOPE) or len(ends) > 12:
            return None
        expected = self._sealed(token, int(ends)).encode()
        if not hmac.compare_digest(expected, cookie.encode("utf-8", "replace")):
            return None
        return token if int(ends) > self._now() else None

    def _sealed(self, token: Token, ends: int) -> str:
        text = f"{token.id}.{ends}"
        # the token's own hash is in it: another one with its id would be another
        seal = hmac.new(self._key, f"{text}.{token.sha256}".encode(), hashlib.sha256)
        return f"{text}.{seal.hexdigest()}"
