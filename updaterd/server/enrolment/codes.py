# SPDX-License-Identifier: Apache-2.0
"""One-time codes, and the machines that used them.

Only hashes are kept, of codes as of tokens. A code and the token that it becomes have
one id. Using a code is one transaction: it is gone, and the token is there, or neither.
Whoever comes again with the code and the token's hash is told the same; who comes with
another hash is a thief, or was robbed, and gets nothing.
"""

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from updaterd.core.enrolment import CODE_BYTES, Asked, code_of, digest_of
from updaterd.errors import RejectedError
from updaterd.server.enrolment.file import MACHINES, EnrolmentFile, token_of
from updaterd.server.scopes import Token, check_machine_scopes

MOST_CODES = 10_000
MOST_MACHINES = 1_000_000
LONGEST_S = 30 * 86400
_REMEMBERED_S = 30 * 86400  # so that a code that is over is not one nobody knows


class RefusedCodeError(RejectedError):
    """A code that gets nobody in.

    Args:
        code: of the error.
        cause: what happened.
        do: what to do.
        ident: public name of the code, or of the token that it became; "" for none.
    """

    def __init__(self, code: str, cause: str, *, do: str, ident: str = "") -> None:
        super().__init__(cause, do=do, code=code)
        self.id = ident


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A code that nobody has used, without its secret.

    Attributes:
        id: public name, which its token will have.
        created: seconds since 1970; so is `expires`.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created: int
    expires: int


class Enrolment:
    """The codes and enrolled machines of one state directory.

    Args:
        state: the directory; the file in it is 0600, and made with the first code.
        draw: a public name, which another may have.
    """

    def __init__(
        self, state: Path, *, draw: Callable[[], str] = lambda: secrets.token_hex(4)
    ) -> None:
        self._file = EnrolmentFile(state)
        self._draw = draw

    def find(self, digest: str) -> Token | None:
        """Return the enrolled machine whose token has this hash.

        Raises:
            BrokenError: the file cannot be read.
        """
        return self._file.look("sha256", digest)

    def get(self, token_id: str) -> Token | None:
        """Return the enrolled machine whose token has this public name.

        Raises:
            BrokenError: the file cannot be read.
        """
        return self._file.look("id", token_id)

    def codes(self) -> tuple[Code, ...]:
        """Return the codes that nobody has used, in the order of their making.

        Raises:
            BrokenError: the file cannot be read.
        """
        rows = self._file.all(
            "SELECT id, name, scopes, created, expires FROM codes ORDER BY created, id"
        )
        return tuple(
            Code(id=ident, name=name, scopes=tuple(scopes.split()),
                 created=created, expires=expires)
            for ident, name, scopes, created, expires in rows
        )  # fmt: skip

    def machines(self) -> tuple[Token, ...]:
        """Return the tokens of enrolled machines, in the order of their coming.

        Raises:
            BrokenError: the file cannot be read.
        """
        rows = self._file.all(f"{MACHINES} ORDER BY created, id")
        return tuple(map(token_of, rows))

    def make(
        self, scopes: tuple[str, ...], *, name: str, count: int, lasts_s: int, now: int
    ) -> tuple[tuple[Code, str], ...]:
        """Add codes; return each with its secret, which is not kept.

        Raises:
            RejectedError: a scope that no machine may have, too many codes, or codes
                that would last too long.
            BrokenError: the file cannot be written.

        Power cut: all of them are there or none; none was shown before.
        """
        check_machine_scopes(scopes)
        if not 0 < lasts_s <= LONGEST_S:
            raise RejectedError(
                f"a code cannot last for {lasts_s} seconds",
                do=f"let it last for {LONGEST_S // 86400} days at most",
                code="bad_code_terms",
            )
        issued = []
        with self._file.writing(make=True) as db:
            db.execute("DELETE FROM codes WHERE expires < ?", (now - _REMEMBERED_S,))
            ((waiting,),) = db.execute("SELECT count(*) FROM codes")
            if not 0 < count <= MOST_CODES - waiting:
                raise RejectedError(
                    f"{count} codes cannot be made: {waiting} wait to be used, and "
                    f"{MOST_CODES} may",
                    do="make fewer, or revoke some",
                    code="bad_code_terms",
                )
            for _ in range(count):
                secret = code_of(secrets.token_bytes(CODE_BYTES))
                code = Code(id=self._free_id(db), name=name, scopes=scopes,
                            created=now, expires=now + lasts_s)  # fmt: skip
                db.execute(
                    "INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?)",
                    (digest_of(secret), code.id, name, " ".join(scopes), now,
                     code.expires),
                )  # fmt: skip
                issued.append((code, secret))
        return tuple(issued)

    def _free_id(self, db: sqlite3.Connection) -> str:
        """Return a public name that no code and no machine has.

        Of 100,000 that are drawn two are likely to be one: its machine could not be
        enrolled, or be revoked with the other.
        """
        while True:
            ident = self._draw()
            other = db.execute(
                "SELECT 1 FROM codes WHERE id = ?1 "
                "UNION ALL SELECT 1 FROM machines WHERE id = ?1",
                (ident,),
            ).fetchone()
            if other is None:
                return ident

    def enroll(self, claim: Asked, *, is_taken: bool, now: int) -> tuple[Token, bool]:
        """Turn a code into a token; return it, and whether it was not one before.

        Args:
            claim: what the machine asks.
            is_taken: whether another token has the hash that is asked for.
            now: seconds since 1970.

        Raises:
            RefusedCodeError: the code gets nobody in, or not this machine.
            _unknown: the same.
            _used: the same.
            BrokenError: the file cannot be written.

        Power cut: the code is there or its token, and what was answered is there.
            Whoever got no answer asks again, and is told the same.
        """
        digest = digest_of(claim.code)
        if not self._file.exists():
            raise _unknown()
        with self._file.writing() as db:
            row = db.execute(f"{MACHINES} WHERE code_sha256 = ?", (digest,)).fetchone()
            if row is not None:
                token = token_of(row)
                if token.sha256 != claim.token_sha256:
                    raise _used(token.id)
                return token, False
            token = self._taken_code(db, digest, claim, now)
            if (
                is_taken
                or db.execute(
                    "SELECT 1 FROM machines WHERE sha256 = ?", (claim.token_sha256,)
                ).fetchone()
            ):
                # it would stand before the one that has it, which may do more
                raise RefusedCodeError(
                    "token_taken",
                    "the token that the machine made is in use here already",
                    do="ask again with a token of the machine's own",
                    ident=token.id,
                )
            ((machines,),) = db.execute("SELECT count(*) FROM machines")
            if machines >= MOST_MACHINES:
                raise RefusedCodeError(
                    "too_many_tokens",
                    f"there are {MOST_MACHINES} enrolled machines",
                    do="revoke some",
                    ident=token.id,
                )
            db.execute("DELETE FROM codes WHERE sha256 = ?", (digest,))
            db.execute(
                "INSERT INTO machines VALUES (?, ?, ?, ?, ?, ?)",
                (token.id, token.sha256, digest, token.name, " ".join(token.scopes),
                 token.created),
            )  # fmt: skip
        return token, True

    @staticmethod
    def _taken_code(
        db: sqlite3.Connection, digest: str, claim: Asked, now: int
    ) -> Token:
        """Return the token that a code would become.

        Raises:
            RefusedCodeError: the code does not count, or is for another product.
            _unknown: nobody gave it out.
        """
        row = db.execute(
            "SELECT id, name, scopes, expires FROM codes WHERE sha256 = ?", (digest,)
        ).fetchone()
        if row is None:
            raise _unknown()
        ident, name, scopes, expires = row
        if now >= expires:
            raise RefusedCodeError(
                "code_expired",
                "the code has expired",
                do="ask the server's operator for a new one",
                ident=ident,
            )
        token = Token(
            id=ident,
            name=name,
            sha256=claim.token_sha256,
            scopes=tuple(scopes.split()),
            created=now,
        )
        about = [scope for scope in token.scopes if scope.startswith("report:")]
        if about and claim.products and not any(map(token.may_report, claim.products)):
            raise RefusedCodeError(
                "code_elsewhere",
                f"the code is for {' '.join(about)}, which this machine does not have",
                do="use it on a machine that has the product: it still counts",
                ident=ident,
            )
        return token

    def revoke(self, token_id: str) -> Token | Code | None:
        """Remove a code or a machine's token and return it; None: there is none.

        Raises:
            BrokenError: the file cannot be written.

        Power cut: the file holds it or it does not.
        """
        if not self._file.exists():
            return None
        holder: Token | Code | None = self.get(token_id)
        if holder is None:
            holder = next((code for code in self.codes() if code.id == token_id), None)
        if holder is not None:
            with self._file.writing() as db:
                for table in ("codes", "machines"):
                    db.execute(f"DELETE FROM {table} WHERE id = ?", (token_id,))  # noqa: S608 - the two names above
        return holder


def _unknown() -> RefusedCodeError:
    return RefusedCodeError(
        "code_unknown",
        "nobody gave out this code here, or it was revoked",
        do="compare it with what you got; ask the server's operator for a new one",
    )


def _used(ident: str) -> RefusedCodeError:
    return RefusedCodeError(
        "code_used",
        "another machine has used the code",
        do="ask the server's operator for a new one. If you used it nowhere else, say "
        f"so: somebody has seen it, and {ident} should be revoked",
        ident=ident,
    )
