# SPDX-License-Identifier: Apache-2.0
"""Identity tokens of a CI (OpenID Connect): whose they are, and whether they count.

PyJWT checks the signature; what a grant takes and the times are `core/identity`. Its
own fetcher of keys is not used: it blocks, follows redirects, has no bound, and
forgets its keys when a refresh fails. Nothing in a token says where a key is (`jku`,
`x5u`, `jwk`) or how it is checked: the key's own kind does.

Nobody is asked for an issuer that no grant names. A key that is not known is looked
for every `COOLDOWN_S` at most, however many tokens name one.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from updaterd.core.identity import IssuerDownError, RefusedIdentityError, time_fault
from updaterd.core.json_fields import Fields, parse_object
from updaterd.core.text import printable
from updaterd.errors import UpdaterError
from updaterd.log import get
from updaterd.net import require_secure
from updaterd.net.connect import open_client
from updaterd.server.scopes import Grant

COOLDOWN_S = 30.0
"""Seconds between two looks at an issuer's keys."""

_FRESH_S = 3600.0  # a key that the issuer took back counts for so long
_KEPT_S = 86400.0  # and for so long when the issuer does not answer
_DEADLINE_S = 10.0
_LONGEST_TOKEN = 16 << 10
_MOST_BYTES = 256 << 10
_MOST_KEYS = 64
_LEAST_RSA_BITS = 2048
_KINDS = {"RSA", "EC", "OKP"}
ALGORITHMS = frozenset({
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
})
"""Signatures by a private key; a key that the server could sign with is none."""

log = get()


class Identities:
    """Finds the grants that an identity token is good for.

    Args:
        grants: those of this server, as they are now.
        clock: seconds on a steady clock.
        now: seconds since 1970.
        connect: makes the client that asks issuers.
    """

    def __init__(
        self,
        grants: Callable[[], tuple[Grant, ...]],
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        connect: Callable[[], httpx.AsyncClient] = open_client,
    ) -> None:
        self._grants = grants
        self._connect = connect
        self._clock = clock
        self._now = now
        self._issuers: dict[str, _Issuer] = {}
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections to issuers."""
        if self._client is not None:
            await self._client.aclose()

    async def find(self, token: str) -> tuple[Grant, ...]:
        """Return the grants that take a token: one at least.

        Raises:
            RefusedIdentityError: none does.
            IssuerDownError: its issuer's keys cannot be had.
            BrokenError: the grants cannot be read.
        """
        header, claims = _read_unverified(token)
        address = claims.get("iss")
        grants = [grant for grant in self._grants() if grant.rule.issuer == address]
        if not isinstance(address, str) or not grants:
            raise RefusedIdentityError(
                f"no grant names the issuer of the token, {_shown(address)}",
                do="make one with `updaterd token create --oidc`; the issuer is "
                "compared as it is written, with or without a slash at its end",
            )
        key = await self._issuer(address).key(_kid_of(header))
        verified = _verify(token, header, key)
        if verified.get("iss") != address:
            raise RefusedIdentityError("the token has two issuers")
        if fault := time_fault(verified, self._now()):
            raise RefusedIdentityError(
                f"the token does not count: {fault}", do="get a new one"
            )
        faults = [grant.rule.fault(verified) for grant in grants]
        pairs = zip(grants, faults, strict=True)
        matching = tuple(grant for grant, fault in pairs if not fault)
        if not matching:
            reasons = sorted(set(faults))[:3]
            raise RefusedIdentityError(
                f"no grant takes the token: {'; '.join(map(_printable, reasons))}",
                do="correct the job, or make a grant with `updaterd token create "
                "--oidc`",
            )
        return matching

    def _issuer(self, address: str) -> "_Issuer":
        named = {grant.rule.issuer for grant in self._grants()}
        for other in self._issuers.keys() - named:
            del self._issuers[other]  # its grant was revoked
        if address not in self._issuers:
            self._issuers[address] = _Issuer(address, self._fetch, self._clock)
        return self._issuers[address]

    async def _fetch(self, url: str) -> bytes:
        """Return what is at an address: no redirect, no coding, within bounds.

        Raises:
            IssuerDownError: it cannot be had, or is something else.
        """
        if self._client is None:
            # reading the system's authorities takes long enough for others to notice
            self._client = await asyncio.to_thread(self._connect)
        client = self._client
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with client.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                raise IssuerDownError(f"{url} answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise IssuerDownError(f"{url} is encoded, and was not to be")
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MOST_BYTES:
                    raise IssuerDownError(f"{url} has more than {_MOST_BYTES} bytes")
        return bytes(body)


class _Issuer:
    """The keys of one issuer: read when one is missing, kept while it is away.

    Args:
        address: as grants and tokens name it.
        fetch: returns what is at an address.
        clock: seconds on a steady clock.
    """

    def __init__(
        self, address: str, fetch: Callable[[str], Any], clock: Callable[[], float]
    ) -> None:
        self._address = address
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._trouble = ""

    async def key(self, kid: str) -> jwt.PyJWK:
        """Return the key with this name.

        Raises:
            RefusedIdentityError: the issuer has none.
            IssuerDownError: whether it has cannot be told now.
        """
        age = self._clock() - self._read_at
        if kid in self._keys and age < _FRESH_S:
            return self._keys[kid]
        if self._reading is None and self._clock() - self._asked_at >= COOLDOWN_S:
            self._asked_at = self._clock()
            self._reading = asyncio.create_task(self._read())
        just_read = self._reading is not None
        if self._reading is not None:
            # whoever asks may leave; the others wait for the same answer
            await asyncio.shield(self._reading)
        age = self._clock() - self._read_at
        if kid in self._keys and age < _KEPT_S:
            return self._keys[kid]
        if self._trouble or not just_read:
            why = self._trouble or "its keys were read a moment ago"
            raise IssuerDownError(
                f"the key {_shown(kid)} of {self._address} cannot be had: {why}",
                do=f"try again in {COOLDOWN_S:.0f} s",
            )
        raise RefusedIdentityError(
            f"{self._address} has no key {_shown(kid)}", do="get a new token"
        )

    async def _read(self) -> None:
        """Read the issuer's keys; what fails leaves those that are there."""
        try:
            async with asyncio.timeout(_DEADLINE_S):
                keys = await self._read_keys()
        except (UpdaterError, OSError, ValueError, httpx.HTTPError) as error:
            self._trouble = _printable(
                str(error) or f"no answer within {_DEADLINE_S:.0f} s"
            )
            log.warning("issuer_unreachable", issuer=self._address, error=self._trouble)
        else:
            self._keys, self._trouble = keys, ""
            self._read_at = self._clock()
        finally:
            self._reading = None

    async def _read_keys(self) -> dict[str, jwt.PyJWK]:
        """Return the issuer's keys by their names.

        Raises:
            IssuerDownError: another answers there, or none.
            UpdaterError: what answers is not what an issuer has.
        """
        where = f"{self._address.rstrip('/')}/.well-known/openid-configuration"
        self._check_address(where)
        raw = await self._fetch(where)
        about = parse_object(raw, where=where, limit=_MOST_BYTES)
        named = about.text("issuer", longest=2048)
        if named != self._address:
            raise IssuerDownError(f"{where} is about the issuer {_shown(named)}")
        address = about.text("jwks_uri", longest=2048)
        self._check_address(address)
        raw = await self._fetch(address)
        document = parse_object(raw, where=address, limit=_MOST_BYTES)
        keys = document.objects("keys", _read_key, most=_MOST_KEYS)
        return {key.key_id: key for key in keys if key is not None and key.key_id}

    def _check_address(self, url: str) -> None:
        """See that an issuer elsewhere leads nobody to this very machine.

        Raises:
            BrokenError: neither https nor loopback.
            IssuerDownError: http, of an issuer that is not.
        """
        require_secure(url)
        if urlsplit(url).scheme != "https" and self._address.startswith("https:"):
            raise IssuerDownError(f"{url} is not https, as its issuer is")


def _read_key(fields: Fields) -> jwt.PyJWK | None:
    """Return a key that can check signatures; None for all others.

    Raises:
        MalformedError: a member that is needed is no text.
    """
    if fields.text("kty") not in _KINDS or "kid" not in fields:
        return None  # a key that both sides have ("oct") among them
    if "use" in fields and fields.text("use") != "sig":
        return None
    names = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
    members = {n: fields.text(n, longest=4096) for n in names if n in fields}
    try:
        key = jwt.PyJWK.from_dict(members)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _LEAST_RSA_BITS:
        return None
    return key if key.algorithm_name in ALGORITHMS else None


def _read_unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return header and claims of a token, whoever made it.

    Raises:
        RefusedIdentityError: it is none.
    """
    if len(token) > _LONGEST_TOKEN:
        raise RefusedIdentityError(f"the token is longer than {_LONGEST_TOKEN}")
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise RefusedIdentityError("the token cannot be read") from error
    return whole["header"], whole["payload"]


def _kid_of(header: Mapping[str, Any]) -> str:
    """Return the name of the key that a token says it was signed with.

    Raises:
        RefusedIdentityError: it says none.
    """
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        raise RefusedIdentityError("the token does not name its key (kid)")
    return kid


def _verify(token: str, header: Mapping[str, Any], key: jwt.PyJWK) -> Mapping[str, Any]:
    """Return the claims of a token that this key has signed.

    Raises:
        RefusedIdentityError: it has not.
    """
    if "crit" in header or header.get("alg") != key.algorithm_name:
        raise RefusedIdentityError(
            f"the token is signed with {_shown(header.get('alg'))}, and its key is for "
            f"{key.algorithm_name}"
        )
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            options={
                "verify_signature": True,
                # these are the grant's to judge, with this server's clock
                "verify_aud": False,
                "verify_exp": False,
                "verify_iat": False,
                "verify_iss": False,
                "verify_jti": False,
                "verify_nbf": False,
                "verify_sub": False,
            },
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise RefusedIdentityError("the token's signature is not valid") from error
    return dict(claims)


def _shown(value: object) -> str:
    return _printable(json.dumps(value) if isinstance(value, str) else "none")


def _printable(text: str) -> str:
    return printable(text, longest=300)
