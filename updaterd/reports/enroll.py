# SPDX-License-Identifier: Apache-2.0
"""Enrol this machine: a one-time code for a token that is made here.

The token is on the disk before the server hears of its hash, and stays there until the
server has answered. So whatever is killed in between, on either side, the same command
asks for the same again, and is told the same. Each code has a token of its own: a slip
of who types it again does not cost the one that the server may have taken.
"""

import json
import os
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from updaterd.core import codes
from updaterd.core.dataclass import dataclass
from updaterd.core.enrolment import Asked, Granted, digest_of, parse_granted
from updaterd.core.json_fields import Fields, parse_object
from updaterd.core.retry_after import parse_retry_after
from updaterd.core.settings import Enrolment
from updaterd.core.text import printable, public_url
from updaterd.durable import remove, write_file
from updaterd.errors import (
    BrokenError,
    MalformedError,
    RejectedError,
    TransientError,
    UpdaterError,
)
from updaterd.files import regular
from updaterd.net import Fetcher
from updaterd.net.addresses import origin_of
from updaterd.system import locks

_PREFIX = "upd_"
_LIMIT = 64 * 1024
_AGAIN = frozenset({429, 503})
_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the machine is known as, to whom.

    Attributes:
        origin: scheme, host and port of the server: nobody else gets the token.
        code_sha256: of the code that was used.
        token: the machine's own.
        id: its public name; "" while no answer has come.
        enrolled: seconds since 1970.
    """

    origin: tuple[str, str, int]
    code_sha256: str
    token: str
    id: str = ""
    name: str = ""
    scopes: tuple[str, ...] = ()
    enrolled: int = 0

    @property
    def server(self) -> str:
        """Return the server's address, for people."""
        scheme, host, port = self.origin
        host = f"[{host}]" if ":" in host else host
        usual = {"https": 443, "http": 80}.get(scheme)
        return f"{scheme}://{host}" + ("" if port == usual else f":{port}")

    def may_read(self) -> bool:
        """Tell whether the feed and its files are open to it."""
        return "read" in self.scopes

    def may_report(self, product: str) -> bool:
        """Tell whether it may report about a product."""
        return not {f"report:{product}", "report:*"}.isdisjoint(self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enroller:
    """Enrols one machine.

    Attributes:
        settings: `[enrolment]`.
        file: where the token is kept, in the state directory.
        now: seconds since 1970.
    """

    settings: Enrolment
    file: Path
    now: Callable[[], float]

    def known(self) -> Known | None:
        """Return what this machine is known as; None: it is not enrolled.

        Raises:
            BrokenError: the file cannot be read, or is damaged.
        """
        known = self._read(self.file)
        return known if known is not None and known.id else None

    def enroll(
        self,
        code: str,
        products: tuple[str, ...],
        fetcher: Fetcher,
        *,
        within_s: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> tuple[Known, Known | None]:
        """Use a code; return what the machine is known as now, and what it was.

        Args:
            code: as `core.enrolment.read_code` has it.
            products: what is configured here.
            fetcher: asks the network.
            within_s: how long a server that is busy is asked again.
            pause: waits so many seconds.

        Raises:
            RejectedError: the server refuses the code, for good.
            TransientError: no answer; the same command may be given again.
            BrokenError: the token cannot be kept here.

        Power cut: the token is on the disk before its hash is sent. The next call
            with the same code sends the same.
        """
        try:
            with self._alone():
                before = self._read(self.file)
                asking = self._asking(code, before)
                claim = Asked(
                    code=code,
                    token_sha256=digest_of(asking.token),
                    products=products,
                )
                granted = self._ask(claim, fetcher, within_s, pause)
                now = Known(
                    origin=asking.origin,
                    code_sha256=asking.code_sha256,
                    token=asking.token,
                    id=granted.id,
                    name=granted.name,
                    scopes=granted.scopes,
                    enrolled=int(self.now()),
                )
                self._write(self.file, now)
                for claim_file in self._claims():
                    remove(claim_file)
        except OSError as error:
            raise self._unwritable(error) from error
        return now, before

    def forget(self) -> Known | None:
        """Delete the token; return what it was, if it was one.

        Raises:
            BusyError: the machine is being enrolled.
            BrokenError: it cannot be deleted.

        Power cut: it is there or it is not.
        """
        if not self.file.parent.is_dir():
            return None
        try:
            with self._alone():
                try:
                    known = self._read(self.file)
                except BrokenError:
                    known = None  # it is damaged, and goes
                for path in (self.file, *self._claims()):
                    remove(path)
        except OSError as error:
            raise self._unwritable(error) from error
        return known

    def _alone(self) -> AbstractContextManager[None]:
        lock = self.file.parent / "locks" / "enrolment.lock"
        return locks.hold(lock, subject="the enrolment")

    def _claim(self, digest: str) -> Path:
        return self.file.with_name(f"{self.file.stem}-claim-{digest[:16]}.json")

    def _claims(self) -> list[Path]:
        return list(self.file.parent.glob(f"{self.file.stem}-claim*.json"))

    def _asking(self, code: str, before: Known | None) -> Known:
        """Return what to ask by: what was asked by before, if it was the same code.

        Raises:
            BrokenError: what was asked before cannot be read.
            OSError: it cannot be kept.
        """
        url = self.settings.url
        digest, origin = digest_of(code), origin_of(url)
        claim_file = self._claim(digest)
        for known in (self._read(claim_file), before):
            if known and (known.code_sha256, known.origin) == (digest, origin):
                return known
        token = _PREFIX + secrets.token_urlsafe(32)
        asking = Known(origin=origin, code_sha256=digest, token=token)
        self._write(claim_file, asking)
        return asking

    def _ask(
        self,
        claim: Asked,
        fetcher: Fetcher,
        within_s: float,
        pause: Callable[[float], None],
    ) -> Granted:
        """Ask until there is an answer that stays.

        Raises:
            TransientError: no answer came.
            _refusal: the server refuses the code, or is busy.
            _no_server: it is no server of ours.
        """
        url = self.settings.url
        left_s = within_s
        while True:
            try:
                status, headers, body = fetcher.exchange(
                    url, claim.encode(), headers={}
                )
            except TransientError as error:
                raise TransientError(
                    error.cause,
                    means="the code still counts",
                    do="give the same command again; if it lasts, check network, "
                    "proxy and certificates",
                    code=error.code,
                ) from error
            if status in {200, 201}:
                try:
                    return parse_granted(body)
                except MalformedError as error:
                    raise _no_server(url, str(error)) from error
            wait_s = parse_retry_after(
                headers.get("retry-after", ""), date="", now=self.now()
            )
            wait_s = max(wait_s, _PAUSE_S)
            if status not in _AGAIN or wait_s > left_s:
                raise _refusal(url, status, body)
            pause(wait_s)
            left_s -= wait_s

    def _read(self, path: Path) -> Known | None:
        try:
            data = regular.read(path, _LIMIT)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            return _known(parse_object(data, where=str(path), limit=_LIMIT))
        except MalformedError as error:
            raise BrokenError(
                f"{path} is damaged: {error.cause}",
                means="the machine's token is lost",
                do="`updaterd enroll --forget`, then enrol it with a new code",
                code="enrolment_unwritable",
            ) from error

    def _write(self, path: Path, known: Known) -> None:
        """Keep it, for the daemon's user alone.

        Raises:
            OSError: the disk refused.

        Power cut: what was there, or this.
        """
        owner = None
        if os.geteuid() == 0:
            state = path.parent.stat()
            owner = state.st_uid, state.st_gid
        document = {
            "schema": 1,
            "origin": dict(zip(("scheme", "host", "port"), known.origin, strict=True)),
            "code_sha256": known.code_sha256,
            "token": known.token,
            "id": known.id,
            "name": known.name,
            "scopes": list(known.scopes),
            "enrolled": known.enrolled,
        }
        write_file(path, json.dumps(document).encode(), owner=owner)

    def _unwritable(self, why: OSError) -> BrokenError:
        return BrokenError(
            f"cannot read or write the machine's token in {self.file.parent}: "
            f"{why.strerror or why}",
            means="the machine is as known as before",
            do="run it as root or as the daemon's user, and see to space and rights",
            code="enrolment_unwritable",
        )


def _known(fields: Fields) -> Known:
    origin = fields.fields("origin")
    return Known(
        origin=(origin.text("scheme"), origin.text("host"), origin.integer("port")),
        code_sha256=fields.hexdigest("code_sha256"),
        token=fields.text("token"),
        id=fields.text("id"),
        name=fields.text("name"),
        scopes=fields.texts("scopes", most=64),
        enrolled=fields.integer("enrolled"),
    )


def _refusal(url: str, status: int, body: bytes) -> UpdaterError:
    """Return why a server said no, in its own words where they are those of ours."""
    try:
        fields = parse_object(body, where="the answer", limit=_LIMIT)
        code = fields.text("code", longest=64)
        detail = printable(fields.text("detail", longest=2000), longest=300)
        remedy = printable(fields.text("remedy", longest=2000), longest=300)
    except MalformedError:
        return _no_server(url, f"it answered {status}")
    if status in {404, 405}:
        return _no_server(url, f"it answered {status}")
    text = f"{public_url(url)} does not enrol this machine: {detail}"
    if status >= 500 or status == 429:
        return TransientError(
            text,
            means="the code still counts",
            do="give the same command again later",
            code=code if codes.find(code) else "enrolment_refused",
        )
    return RejectedError(
        text,
        means="nothing was changed",
        do=remedy,
        code=code if codes.find(code) else "enrolment_refused",
    )


def _no_server(url: str, why: str) -> TransientError:
    return TransientError(
        f"{public_url(url)} is not where machines are enrolled: {why}",
        means="the code still counts",
        do="correct `enrolment.url`; the server must be as new as this updaterd",
        code="enrolment_refused",
    )
