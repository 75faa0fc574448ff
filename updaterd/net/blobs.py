# SPDX-License-Identifier: Apache-2.0
"""Blobs: fetched in pieces over days if need be, from anywhere, believed by hash.

A blob is named by its sha256, which the signed manifest gives, so any mirror may
serve it and a broken download goes on where it stopped (RFC 9110 section 14). What
is on disk under the final name was hashed whole after its last byte.
"""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from updaterd import durable
from updaterd.core import layout
from updaterd.core.dataclass import dataclass
from updaterd.core.text import public_url
from updaterd.errors import RejectedError, TransientError, UpdaterError
from updaterd.files import places
from updaterd.net import (
    Fetcher,
    HttpError,
    MisbehavedError,
    NotFoundError,
    ShortAnswerError,
    Stream,
)

Progress = Callable[[int, int], None]
"""Bytes here, bytes in all."""

_PIECE = 1 << 20
_FULL = "disk_full"


class WrongBytesError(RejectedError):
    """A mirror serves something else under this name."""

    code = "hash_mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What is wanted, and where it goes."""

    sha256: str
    length: int
    into: Path

    @property
    def final(self) -> Path:
        """Return its place when it is whole and verified."""
        return self.into / self.sha256

    @property
    def part(self) -> Path:
        """Return its place until then."""
        return self.into / f"{self.sha256}.part"

    @property
    def note(self) -> Path:
        """Return where it is remembered which edition the part is from."""
        return self.into / f"{self.sha256}.part.json"


def fetch_blob(  # noqa: PLR0913
    fetcher: Fetcher,
    bases: Sequence[str],
    sha256: str,
    length: int,
    *,
    into: Path,
    progress: Progress | None = None,
) -> Path:
    """Return the path of the blob, fetched from the first base that has it right.

    Args:
        fetcher: asks the network.
        bases: addresses of directories that hold `blobs/`, best first.
        sha256: its name and what it must hash to.
        length: in bytes.
        into: private directory for whole blobs and parts of them.
        progress: is told after every piece.

    Raises:
        RejectedError: every base that answered serves other bytes
            (`hash_mismatch`).
        NotFoundError: no base has it.
        TransientError: no base could be asked, or the disk is full; what came is
            kept, and the next call goes on from there.

    Power cut: the part loses its unwritten tail; the hash of the whole decides.
    """
    blob = Blob(sha256=sha256, length=length, into=into)
    try:
        places.make(into)  # whoever deleted the cache may do so at any time
        if _is_whole(blob):
            if progress is not None:
                progress(length, length)
            return blob.final
        return _from_any(fetcher, bases, blob, progress)
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        if full:
            _forget(blob)  # it cannot become whole, and others need the room
        raise TransientError(
            f"cannot write to {into}: {error}",
            means="the download waits; what is installed keeps running",
            do=places.advice(into, error.errno),
            code=_FULL if full else "cache_unusable",
        ) from error


def _is_whole(blob: Blob) -> bool:
    try:
        if blob.final.lstat().st_size == blob.length and (
            _hash_of(blob.final).hexdigest() == blob.sha256
        ):
            return True
        blob.final.unlink()
    except FileNotFoundError:
        pass
    return False


def _from_any(
    fetcher: Fetcher,
    bases: Sequence[str],
    blob: Blob,
    progress: Progress | None,
) -> Path:
    failures: list[UpdaterError] = []
    for base in bases:
        for _ in range(2):  # a second time from scratch, when the part was to blame
            resumed = _size(blob.part) > 0
            try:
                _fetch(fetcher, base, blob, progress)
            except UpdaterError as error:
                wrong = isinstance(error, WrongBytesError)
                if wrong:
                    _forget(blob)
                if error.code == _FULL:
                    _forget(blob)
                    raise  # no other server has more room here
                if wrong and resumed:
                    continue
                failures.append(error)
                break
            durable.settle(blob.part, blob.final, mode=0o600)
            blob.note.unlink(missing_ok=True)
            return blob.final
    # One that may do better later is worth waiting for; who has other bytes, or
    # nothing, is not.
    failures.sort(key=lambda error: isinstance(error, NotFoundError | WrongBytesError))
    if failures:
        raise failures[0]
    raise TransientError(
        f"no server has an undamaged copy of {blob.sha256[:12]}", code="unreachable"
    )


def _fetch(
    fetcher: Fetcher,
    base: str,
    blob: Blob,
    progress: Progress | None,
) -> None:
    """Bring the part to its full length and check it.

    Raises:
        WrongBytesError: it is complete and wrong, or cannot become right.
        HttpError: as `Fetcher.stream`, with the others it raises.
    """
    url = f"{base.rstrip('/')}/{layout.blob(blob.sha256)}"
    start = _size(blob.part)
    if start > blob.length:
        raise WrongBytesError(f"the part of {blob.sha256[:12]} is too long")
    if start < blob.length:
        tag = _tag(blob, base) if start else None
        try:
            with fetcher.stream(
                url, start=start, length=blob.length, if_range=tag
            ) as stream:
                _write(stream, base, blob, start, progress)
        except HttpError as error:
            if error.status == 416:
                raise WrongBytesError(
                    f"{public_url(url):.200} is shorter than it should be"
                ) from error
            raise
    if _size(blob.part) != blob.length or (
        _hash_of(blob.part).hexdigest() != blob.sha256
    ):
        raise WrongBytesError(
            f"{public_url(url):.200} is not the file that was signed",
            means="the file was deleted; nothing was installed from it",
            do="the server or a mirror is damaged or tampered with: tell whoever "
            "publishes",
        )


def _write(
    stream: Stream,
    base: str,
    blob: Blob,
    start: int,
    progress: Progress | None,
) -> None:
    """Append the body to the part.

    Raises:
        MisbehavedError: the server answered with another range.
        ShortAnswerError: the answer was cut; what came is kept.
        WrongBytesError: more bytes than were signed, or fewer.
    """
    if stream.status == 200:
        start = 0
    elif not stream.headers.get("content-range", "").startswith(f"bytes {start}-"):
        raise MisbehavedError(
            f"a server answered for {blob.sha256[:12]} with another range",
            code="bad_range",
        )
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(blob.part, flags, 0o600), "wb") as file:
        file.truncate(start)
        file.seek(start)
        _remember(blob, base, stream.headers.get("etag", ""))
        reached = start
        try:
            for chunk in stream.chunks:
                reached += len(chunk)
                if reached > blob.length:
                    raise WrongBytesError(
                        f"{blob.sha256[:12]} has more bytes than signed"
                    )
                file.write(chunk)
                if progress is not None:
                    progress(reached, blob.length)
        except ShortAnswerError as error:
            # Cut on its way, or all that there is: the server says how much that is.
            declared = stream.headers.get("content-length", str(blob.length))
            if stream.status == 200 and declared != str(blob.length):
                raise WrongBytesError(
                    f"{blob.sha256[:12]} is shorter there than it should be"
                ) from error
            raise


def _remember(blob: Blob, base: str, etag: str) -> None:
    # Lost or wrong it costs bytes, never correctness: no sync.
    if etag.startswith('"'):  # only strong ones may stand in If-Range
        note = json.dumps({"base": base, "etag": etag}).encode()
        durable.publish_file(blob.note, note, mode=0o600)
    else:
        blob.note.unlink(missing_ok=True)


def _tag(blob: Blob, base: str) -> str | None:
    try:
        note = json.loads(blob.note.read_bytes())
        return str(note["etag"]) if note["base"] == base else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget(blob: Blob) -> None:
    for path in (blob.part, blob.note):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _hash_of(path: Path) -> "hashlib._Hash":
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest
