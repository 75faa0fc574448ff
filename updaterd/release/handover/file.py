# SPDX-License-Identifier: Apache-2.0
r"""The release file: all of a release in one container (docs/formats.md).

    "updaterd release 1\\n"
    length of the index, 8 bytes, the highest first
    index: canonical JSON, which names every member with its hash and length
    members, one after another, in the order of the index

It is a stranger's until its hashes and signatures are checked: nothing in it becomes
a path, every size is bounded, and what is missing at its end is noticed at once.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from updaterd import durable
from updaterd.core import attestation, manifest
from updaterd.core.json_fields import MAX_INTEGER, Fields, encode, parse_object
from updaterd.core.names import check_name, check_version
from updaterd.errors import BrokenError, MalformedError, RejectedError

MAGIC = b"updaterd-release-file 1\n"
STATE, BASE, DRAFT, ATTESTATION = "state", "base", "draft", "attestation"
BLOB = "blob"
ROLE, MANIFEST = "role", "manifest"
"""What a member is: signed metadata that was published, the manifest of a release that
a delta starts from, the new manifest before it has its place; what the release consists
of; and what was signed."""

_ROLE_BYTES = 32 * 2**20
_LIMITS = {
    STATE: _ROLE_BYTES,
    ROLE: _ROLE_BYTES,
    BASE: manifest.MAX_BYTES,
    DRAFT: manifest.MAX_BYTES,
    MANIFEST: manifest.MAX_BYTES,
    ATTESTATION: attestation.MAX_BYTES,
    BLOB: MAX_INTEGER,
}
_MAX_INDEX = 4 * 2**20
_MAX_MEMBERS = 8192
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One part of a release file.

    Attributes:
        kind: what it is.
        name: of a role's file, or a platform; empty for what its hash names.
        sha256: of its bytes.
        length: in bytes.
        at: where it begins.
    """

    kind: str
    name: str
    sha256: str
    length: int
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Something to be put into a release file: bytes, or a file that holds them."""

    kind: str
    name: str
    source: bytes | Path | None = None
    member: Member | None = None


class ReleaseFile:
    """A release file, open for reading.

    Args:
        path: where it is.
        file: open at its begin.

    Raises:
        MalformedError: it is none, or not whole.
        OSError: it cannot be read.

    Attributes:
        path: where it is.
        product: whose release.
        version: its label.
        members: all of them, in their order.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        if file.read(len(MAGIC)) != MAGIC:
            raise MalformedError(
                f"{path} is not a release file, or of a newer updaterd",
                do="name the file that `updaterd release build` wrote",
                code="bad_release_file",
            )
        size = int.from_bytes(file.read(8), "big")
        if size > _MAX_INDEX:
            raise self._broken(f"its index has {size} bytes")
        raw = file.read(size)
        start = len(MAGIC) + 8 + size
        if len(raw) < size:
            raise self._cut()
        try:
            index = parse_object(raw, where=f"{path}: index", limit=_MAX_INDEX)
            if index.integer("schema", low=1) != 1:
                raise self._broken("it is of a newer updaterd")
            self.product = check_name("product", index.text("product"))
            self.version = check_version(index.text("version"))
            members = index.objects("members", _member, most=_MAX_MEMBERS)
        except MalformedError as error:
            error.code = "bad_release_file"
            raise
        self.members = tuple(_placed(members, start))
        end = start + sum(member.length for member in members)
        actual = os.fstat(file.fileno()).st_size
        if actual < end:
            raise self._cut()
        if actual > end:
            raise self._broken(f"{actual - end} bytes follow its end")

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Yield the release file at a path.

        Raises:
            MalformedError: it is none, or not whole.
            BrokenError: it cannot be read.
        """
        try:
            file = path.open("rb")
        except OSError as error:
            raise BrokenError(
                f"{path} cannot be read: {error.strerror}",
                do="check the path and its permissions",
                code="unreadable",
            ) from error
        with file:
            yield cls(path, file)

    def of_kind(self, kind: str) -> tuple[Member, ...]:
        """Return the members of a kind, in their order."""
        return tuple(member for member in self.members if member.kind == kind)

    def read(self, member: Member) -> bytes:
        """Return the bytes of a small member, which has the hash that the index says.

        Raises:
            RejectedError: it has another.
        """
        raw = b"".join(self._pieces(member))
        if hashlib.sha256(raw).hexdigest() != member.sha256:
            raise self._changed(member)
        return raw

    def check(self, member: Member) -> None:
        """Hash a member, however large it is.

        Raises:
            RejectedError: it has another hash than the index says.
        """
        state = hashlib.sha256()
        for piece in self._pieces(member):
            state.update(piece)
        if state.hexdigest() != member.sha256:
            raise self._changed(member)

    def copy(self, member: Member, out: Path) -> None:
        """Write a member to a file of its own.

        Raises:
            RejectedError: it has another hash than the index says.
            OSError: the disk refused.

        Power cut: the file is incomplete; it is a scratch file.
        """
        state = hashlib.sha256()
        with out.open("wb") as file:
            for piece in self._pieces(member):
                state.update(piece)
                file.write(piece)
        if state.hexdigest() != member.sha256:
            raise self._changed(member)

    def _pieces(self, member: Member) -> Iterator[bytes]:
        self._file.seek(member.at)
        rest = member.length
        while rest:
            piece = self._file.read(min(rest, _PIECE))
            if not piece:
                raise self._cut()
            rest -= len(piece)
            yield piece

    def write(self, out: Path, contents: Iterable[Content]) -> None:
        """Write a release file for the same release; members may be taken over.

        Raises:
            RejectedError: a member that is taken over is damaged.
            OSError: the disk refused.

        Power cut: the old file or the new.
        """
        write(out, self.product, self.version, contents, source=self)

    def _cut(self) -> MalformedError:
        return self._broken("it ends too early", "it was cut short")

    def _broken(self, cause: str, means: str = "") -> MalformedError:
        return MalformedError(
            f"{self.path} is not a whole release file: {cause}",
            means=means or "it was damaged, or is not what `build` wrote",
            do="copy it again from where it was made",
            code="bad_release_file",
        )

    def _changed(self, member: Member) -> RejectedError:
        return RejectedError(
            f"{self.path}: the {member.kind} {member.name or member.sha256[:12]} has "
            "other bytes than the file itself says",
            means="it was damaged on its way, or somebody changed it; nothing was "
            "signed or published",
            do="copy it again from where it was made",
            code="bad_release_file",
        )


def write(
    out: Path,
    product: str,
    version: str,
    contents: Iterable[Content],
    *,
    source: ReleaseFile | None = None,
) -> None:
    """Write a release file: the same bytes for the same contents.

    Args:
        out: where.
        product: whose release.
        version: its label.
        contents: its members, in their order.
        source: a release file that some of them are in.

    Raises:
        RejectedError: a member of `source` is damaged.
        OSError: the disk refused.

    Power cut: the old file or the new; `.NAME.new` may be left, which the next run
    overwrites.
    """
    contents = tuple(contents)
    members = [_described(content) for content in contents]
    index = encode({
        "schema": 1,
        "product": product,
        "version": version,
        "members": [
            {
                "kind": member.kind,
                "name": member.name,
                "sha256": member.sha256,
                "length": member.length,
            }
            for member in members
        ],
    })
    fresh = out.with_name(f".{out.name}.new")
    with fresh.open("wb") as file:
        file.write(MAGIC + len(index).to_bytes(8, "big") + index)
        for content, member in zip(contents, members, strict=True):
            state = hashlib.sha256()
            for piece in _bytes_of(content, source):
                state.update(piece)
                file.write(piece)
            if state.hexdigest() != member.sha256:
                raise RejectedError(
                    f"the {member.kind} {member.name or member.sha256[:12]} changed "
                    "while it was written",
                    means="nothing was written",
                    do="run it again, and leave the files alone meanwhile",
                    code="tree_changed",
                )
    durable.settle(fresh, out)


def _bytes_of(content: Content, source: ReleaseFile | None) -> Iterator[bytes]:
    if isinstance(content.source, bytes):
        yield content.source
    elif content.source is not None:
        with content.source.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    elif source is not None and content.member is not None:
        yield from source._pieces(content.member)  # noqa: SLF001 - the same room


def _described(content: Content) -> Member:
    if content.member is not None:
        return content.member
    if isinstance(content.source, bytes):
        digest, length = hashlib.sha256(content.source), len(content.source)
    else:
        assert content.source is not None
        length = content.source.stat().st_size
        with content.source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    return Member(
        kind=content.kind, name=content.name, sha256=digest.hexdigest(), length=length
    )


def _member(fields: Fields) -> Member:
    kind = fields.text("kind", longest=16)
    if kind not in _LIMITS:
        raise MalformedError(f"{fields.where}: {kind!r} is no kind of member")
    return Member(
        kind=kind,
        name=fields.text("name"),
        sha256=fields.hexdigest("sha256"),
        length=fields.integer("length", high=_LIMITS[kind]),
    )


def _placed(members: Iterable[Member], at: int) -> Iterator[Member]:
    for member in members:
        yield Member(
            kind=member.kind,
            name=member.name,
            sha256=member.sha256,
            length=member.length,
            at=at,
        )
        at += member.length
