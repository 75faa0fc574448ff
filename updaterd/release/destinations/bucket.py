# SPDX-License-Identifier: Apache-2.0
"""A bucket as a destination: S3 and what speaks like it, Google's, Azure's.

Through obstore, which signs, retries and splits. Credentials, region and endpoint come
from the environment, as each cloud's own tools name them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from updaterd.core.caching import cache_control, content_type
from updaterd.release.destinations.contract import (
    PATIENCE_S,
    Held,
    RefusedError,
    Sent,
    Stored,
    UnreachableError,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_PART = 5 << 20
"""What an upload is split into: the least that S3 takes."""
_AT_ONCE = 4
_MOST_PARTS = 9000  # S3 takes 10,000
_REQUEST = "600s"  # for a part: 35 KB/s with four of them under way
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT",
              "AZURE_ENDPOINT", "GOOGLE_BASE_URL")  # fmt: skip


class Bucket:
    """A bucket, or what is below a prefix in it.

    Args:
        address: `s3://BUCKET/PREFIX`, `gs://...`, `az://...`.
        patience_s: how long a request is tried again.

    Raises:
        RefusedError: the address or the settings in the environment are of no use.
    """

    def __init__(self, address: str, *, patience_s: float = PATIENCE_S) -> None:
        self.address = address.rstrip("/")
        try:
            self._store: ObjectStore = from_url(
                self.address,
                client_options={
                    "allow_http": _is_here(os.environ),
                    "connect_timeout": "10s",
                    "timeout": _REQUEST,
                },
                retry_config={
                    "max_retries": 1000 if patience_s > 0 else 0,
                    "retry_timeout": timedelta(seconds=patience_s),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=15),
                        "base": 2,
                    },
                },
            )
        except (BaseError, ValueError) as error:
            raise RefusedError(
                f"cannot use {self.address}: {_first_line(error)}",
                do="correct the address, or what the environment says of the cloud: "
                "docs/publisher.md",
            ) from error

    def stored(self) -> dict[str, Stored]:
        """Return what is there, by path."""
        with self._translated():
            return {
                meta["path"]: Stored(
                    size=meta["size"], changed=meta["last_modified"].timestamp()
                )
                for chunk in obstore.list(self._store)
                for meta in chunk
            }

    def read(self, path: str, limit: int) -> Held | None:
        """Return a file of at most `limit` bytes; None: there is none.

        Raises:
            UnreachableError: or it is larger.
        """
        with self._translated():
            try:
                answer = obstore.get(self._store, path)
                if answer.meta["size"] > limit:
                    raise UnreachableError(
                        f"{self.address}/{path} is larger than {limit} bytes"
                    )
                return Held(data=bytes(answer.bytes()), mark=_mark(answer.meta))
            except FileNotFoundError:
                return None

    def send(self, path: str, source: Path, sent: Sent) -> None:
        """Write a file whole, whatever is there; large ones in parts.

        Power cut: the old one, if any, or the new one; parts of one that was cut are
        nobody's to see, and the bucket's lifecycle rule deletes them.
        """
        size = source.stat().st_size
        with self._translated():
            if size <= _PART:
                self._put(path, source.read_bytes())
                sent(size)
                return
            part = max(_PART, -(-size // _MOST_PARTS))
            obstore.put(
                self._store,
                path,
                _parts(source, part, sent),
                attributes=_attributes(path),
                use_multipart=True,
                chunk_size=part,
                max_concurrency=_AT_ONCE,
            )

    def create(self, path: str, data: bytes) -> bool:
        """Write a file where none is, at once; False: one is there."""
        return self.replace(path, data, None)

    def replace(self, path: str, data: bytes, before: Held | None) -> bool:
        """Replace what was read (None: nothing) at once; False: it is another now."""
        with self._translated():
            try:
                self._put(path, data, before.mark if before else "create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def delete(self, path: str) -> None:
        """Delete a file; it may be gone already."""
        with self._translated():
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError:
                return

    def _put(self, path: str, data: bytes, mode: Any = "overwrite") -> None:
        obstore.put(
            self._store,
            path,
            data,
            attributes=_attributes(path),
            mode=mode,
            use_multipart=False,
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the library says into what a destination says.

        Raises:
            RefusedError: there is no bucket.
            _closed: it asks for credentials or rights.
            UnreachableError: anything else.
        """
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._closed(error) from error
        except (BaseError, OSError, ValueError) as error:
            # A list that fails carries no class of its own.
            if "status code: 403" in str(error) or "status code: 401" in str(error):
                raise self._closed(error) from error
            if "status code: 404" in str(error):
                raise RefusedError(
                    f"there is no bucket at {self.address}: {_first_line(error)}",
                    do="make it, or correct the address",
                ) from error
            raise UnreachableError(
                f"cannot reach {self.address}: {_first_line(error)}"
            ) from error

    def _closed(self, error: Exception) -> RefusedError:
        return RefusedError(
            f"{self.address} refuses: {_first_line(error)}",
            do="give credentials that may list, read, write and delete there: "
            "docs/publisher.md",
        )


def _is_here(environ: Mapping[str, str]) -> bool:
    """Tell whether the cloud is a server on this machine: only there without TLS."""
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), "")
    return urlsplit(endpoint).hostname in _LOOPBACK


def _attributes(path: str) -> dict[str, str]:
    return {
        "Content-Type": content_type(path),
        "Cache-Control": cache_control(path),
    }


def _mark(meta: Mapping[str, Any]) -> dict[str, str]:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}


def _parts(source: Path, size: int, sent: Sent) -> Iterator[bytes]:
    with source.open("rb") as file:
        while piece := file.read(size):
            yield piece
            sent(len(piece))


def _first_line(error: Exception) -> str:
    """Return what happened, without the library's own view of it."""
    return str(error).split("\n\nDebug source", maxsplit=1)[0].replace("\n", " ")[:300]
