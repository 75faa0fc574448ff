# SPDX-License-Identifier: Apache-2.0
"""Whose bearer token a request has: a stored one's, or an identity's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from updaterd.server.scopes import Holder
from updaterd.server.tokens import Tokens

if TYPE_CHECKING:
    from updaterd.server.identities import Identities


class Bearers:
    """Finds who holds a bearer token.

    Args:
        tokens: stored tokens and grants.
        clock: seconds on a steady clock.
        now: seconds since 1970.
    """

    def __init__(
        self, tokens: Tokens, *, clock: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._now = now
        self._identities: Identities | None = None

    async def find(self, secret: str) -> tuple[Holder, ...]:
        """Return whoever holds it: a token, or all grants that take an identity.

        Raises:
            RefusedIdentityError: an identity token that no grant takes.
            IssuerDownError: its issuer's keys cannot be had now.
            BrokenError: the tokens cannot be read.
        """
        # a stored token has no dot: `upd_` and base64url
        if secret.count(".") == 2 and self._tokens.grants():
            return await self._load().find(secret)
        token = self._tokens.find(secret) if secret else None
        return () if token is None else (token,)

    def _load(self) -> "Identities":
        if self._identities is None:
            # a server without grants has no use for a client's and JWT's libraries
            from updaterd.server.identities import Identities  # noqa: PLC0415

            self._identities = Identities(
                self._tokens.grants, clock=self._clock, now=self._now
            )
        return self._identities

    async def close(self) -> None:
        """Close the connections to issuers."""
        if self._identities is not None:
            await self._identities.close()
