# SPDX-License-Identifier: Apache-2.0
"""The bearer tokens of a state directory, kept only as hashes, and its grants.

A token is `upd_` and 256 random bits in base64url; the file holds its SHA-256, so a
leaked file lets nobody in. A slow hash would add nothing: there is no dictionary of
256-bit numbers. `updaterd token` writes the file; the server sees the change on the
next request that needs it. Machines that were enrolled are in a file of their own
(`enrolment`): they are many, and the server writes it.
"""

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from updaterd.core.enrolment import Asked, digest_of
from updaterd.core.identity import Rule
from updaterd.core.json_fields import encode, parse_object
from updaterd.durable import make_dir, write_file
from updaterd.errors import BrokenError, MalformedError, RejectedError
from updaterd.log import get
from updaterd.server.enrolment.codes import Code, Enrolment
from updaterd.server.scopes import (
    Grant,
    Holder,
    Token,
    check_scopes,
    read_grant,
    read_token,
)

log = get()

FILE = "tokens.json"
_PREFIX = "upd_"
_LIMIT = 4 << 20
_MOST = 10_000


def _check_room(holders: tuple[Holder, ...]) -> None:
    """See that there is room for a further one.

    Raises:
        RejectedError: there is none.
    """
    if len(holders) >= _MOST:
        raise RejectedError(
            f"there are {_MOST} of them", do="revoke some", code="too_many_tokens"
        )


def make_state(state: Path) -> Path:
    """Return the server's state directory, made when missing (0700).

    Raises:
        BrokenError: it cannot be made.
    """
    try:
        make_dir(state, mode=0o700)
    except OSError as error:
        raise BrokenError(
            f"cannot make the state directory {state}: {error}",
            do="choose another --state, or fix its parent's permissions",
            code="state_unusable",
        ) from error
    return state


class Tokens:
    """The tokens of one state directory.

    Args:
        state: the directory; `tokens.json` in it is 0600.
        draw: makes a public name, until one is free. Those of codes and of enrolled
            machines are shorter, so that none is both.

    Attributes:
        enrolment: the codes, and the machines that used one.
    """

    def __init__(
        self, state: Path, *, draw: Callable[[], str] = lambda: secrets.token_hex(5)
    ) -> None:
        self._draw = draw
        self._path = state / FILE
        self.enrolment = Enrolment(state)
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._grants: tuple[Grant, ...] = ()
        self._by_id: dict[str, Token] = {}
        self._by_hash: dict[str, Token] = {}
        self._damage = ""
        self._refused = False  # said in the log

    def all(self) -> tuple[Token, ...]:
        """Return every token, reading the file again when it changed.

        Raises:
            BrokenError: the file is unreadable or damaged.
        """
        try:
            self._look()
        except BrokenError as error:
            if not self._refused:
                # once: any stranger's request asks
                self._refused = True
                log.error("tokens_unreadable", error=error.cause, do=error.do)  # noqa: TRY400  the text has it all
            raise
        if self._refused:
            self._refused = False
            log.info("tokens_readable")
        return self._tokens

    def grants(self) -> tuple[Grant, ...]:
        """Return every grant; see `all`.

        Raises:
            BrokenError: the file is unreadable or damaged.
        """
        self.all()
        return self._grants

    def _look(self) -> None:
        """Read the file when it has changed.

        Raises:
            BrokenError: see `all`.
        """
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._take(self._path.read_bytes())
                self._stamp = stamp
        except FileNotFoundError:
            self._tokens, self._grants, self._by_id, self._by_hash = (), (), {}, {}
            self._stamp, self._damage = None, ""
        except OSError as error:
            raise self._unreadable(error) from error
        if self._damage:
            raise self._unreadable(self._damage)

    def forget(self) -> None:
        """Read the file again when it is next asked for."""
        self._stamp = None

    def _unreadable(self, why: object) -> BrokenError:
        return BrokenError(
            f"cannot read the tokens in {self._path}: {why}",
            means="nobody can publish",
            do="fix its permissions, or move it away and create tokens anew",
            code="tokens_unreadable",
        )

    def _take(self, data: bytes) -> None:
        """Read the file, once also when it is damaged: every heartbeat asks."""
        self._damage = ""
        try:
            read = parse_object(data, where=str(self._path), limit=_LIMIT)
            grants = (
                read.objects("grants", read_grant, most=_MOST)
                if "grants" in read
                else ()
            )
            self._tokens = read.objects("tokens", read_token, most=_MOST)
            self._grants = grants
            self._by_id = {token.id: token for token in self._tokens}
            self._by_hash = {token.sha256: token for token in self._tokens}
        except MalformedError as error:
            self._damage = str(error)

    def get(self, token_id: str) -> Token | None:
        """Return the token with this public name; None when it was revoked.

        Raises:
            BrokenError: the file is unreadable or damaged.
        """
        self.all()
        return self._by_id.get(token_id) or self.enrolment.get(token_id)

    def find(self, secret: str) -> Token | None:
        """Return the token with this secret.

        What is looked up is its hash: how long that takes tells a guesser nothing,
        who cannot choose what his guess hashes to.

        Raises:
            BrokenError: the file is unreadable or damaged.
        """
        return self.with_digest(digest_of(secret))

    def with_digest(self, digest: str) -> Token | None:
        """Return the token whose secret has this hash.

        Raises:
            BrokenError: the file is unreadable or damaged.
        """
        self.all()
        return self._by_hash.get(digest) or self.enrolment.find(digest)

    def enroll(self, claim: Asked, *, now: int) -> tuple[Token, bool]:
        """Turn a machine's code into a token; see `Enrolment.enroll`.

        Raises:
            RefusedCodeError: the code gets nobody in, or not this machine.
            BrokenError: a file is unreadable or damaged.

        Power cut: as there.
        """
        # not through what this object keeps: the event loop's thread has that
        digests = {token.sha256 for token in Tokens(self._path.parent).all()}
        is_taken = claim.token_sha256 in digests
        return self.enrolment.enroll(claim, is_taken=is_taken, now=now)

    def create(
        self, scopes: tuple[str, ...], *, name: str, now: Callable[[], float]
    ) -> tuple[Token, str]:
        """Add a token; return it and its secret, which is not kept.

        Raises:
            RejectedError: an unknown scope, or too many tokens.
            BrokenError: the file cannot be read or written.

        Power cut: the file holds the token or it does not; the secret was not
        shown before.
        """
        check_scopes(scopes)
        secret = _PREFIX + secrets.token_urlsafe(32)
        with self._changing() as tokens:
            _check_room(tokens)
            token = Token(
                id=self._free_name(),
                name=name,
                sha256=digest_of(secret),
                scopes=scopes,
                created=int(now()),
            )
            self._write((*tokens, token), self._grants)
        return token, secret

    def grant(
        self,
        rule: Rule,
        scopes: tuple[str, ...],
        *,
        name: str,
        now: Callable[[], float],
    ) -> Grant:
        """Add a grant and return it.

        Raises:
            RejectedError: an unknown scope, one that no identity token can have, or
                too many grants.
            BrokenError: the file cannot be read or written.

        Power cut: the file holds the grant or it does not.
        """
        check_scopes(scopes)
        if "read" in scopes:
            raise RejectedError(
                "a grant cannot have the scope read",
                means="a stream is open for longer than an identity token counts",
                do="make a token for readers",
                code="bad_scope",
            )
        with self._changing() as tokens:
            _check_room(self._grants)
            grant = Grant(
                id=self._free_name(),
                name=name,
                rule=rule,
                scopes=scopes,
                created=int(now()),
            )
            self._write(tokens, (*self._grants, grant))
        return grant

    def _free_name(self) -> str:
        """Return a public name that nobody has, while the file is locked.

        Who is revoked by it must be one, and whose deeds the log tells as well.
        """
        names = {holder.id for holder in (*self._tokens, *self._grants)}
        while (name := self._draw()) in names:
            pass
        return name

    def revoke(self, token_id: str) -> Holder | Code:
        """Remove a token, a grant, a code or what it became, and return it.

        Raises:
            RejectedError: there is none with this id.
            BrokenError: the file cannot be read or written.

        Power cut: the file holds it or it does not.
        """
        with self._changing() as tokens:
            for holder in (*tokens, *self._grants):
                if holder.id == token_id:
                    self._write(
                        tuple(token for token in tokens if token != holder),
                        tuple(grant for grant in self._grants if grant != holder),
                    )
                    return holder
        if enrolled := self.enrolment.revoke(token_id):
            return enrolled
        raise RejectedError(
            f"there is no token {token_id!r:.80}",
            do="`updaterd token list` shows their ids",
            code="no_such_token",
        )

    @contextmanager
    def _changing(self) -> Iterator[tuple[Token, ...]]:
        """Lock the tokens against other processes and yield them.

        Without it, a token that is made while another is revoked brings it back. The
        directory itself is locked: no file is made, by root or another, that some
        later caller could not open.

        Raises:
            BrokenError: the directory or the file cannot be read, or not be locked.
        """
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:  # a file system that has no locks
                raise self._unreadable(error) from error
            self.forget()
            yield self.all()
        finally:
            os.close(folder)

    def _write(self, tokens: tuple[Token, ...], grants: tuple[Grant, ...]) -> None:
        document = {
            "schema": 1,
            "tokens": [
                {
                    "id": t.id,
                    "name": t.name,
                    "sha256": t.sha256,
                    "scopes": " ".join(t.scopes),
                    "created": t.created,
                }
                for t in tokens
            ],
            "grants": [
                {
                    "id": g.id,
                    "name": g.name,
                    "oidc": str(g.rule),
                    "scopes": " ".join(g.scopes),
                    "created": g.created,
                }
                for g in grants
            ],
        }
        try:
            write_file(self._path, encode(document), owner=self._owner())
        except OSError as error:
            raise BrokenError(
                f"cannot write {self._path}: {error}",
                do="check the directory's permissions and free space",
                code="tokens_unwritable",
            ) from error

    def _owner(self) -> tuple[int, int] | None:
        """Return the file's owner: the server's user, also where root runs this."""
        if os.geteuid() != 0:
            return None
        state = os.stat(self._path.parent)
        return state.st_uid, state.st_gid
