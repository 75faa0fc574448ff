# SPDX-License-Identifier: Apache-2.0
"""The trust cache: a lock for python-tuf's files, and manifests beside them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api import exceptions
from tuf.api.metadata import TargetFile

from updaterd import durable
from updaterd.core import layout
from updaterd.errors import MalformedError, RejectedError, TransientError
from updaterd.files import places
from updaterd.net import MIN_RATE, Fetcher, NotFoundError
from updaterd.system import locks
from updaterd.trust.failures import explain
from updaterd.trust.signed import Signed

_KEPT = 8


class Store:
    """The cache directory and the repository behind it.

    Args:
        cache: directory for verified metadata, 0700; may be deleted at any time.
        base: address of the directory that holds `metadata/` and `targets/`.
        fetcher: asks the network.
    """

    def __init__(self, cache: Path, base: str, fetcher: Fetcher) -> None:
        self.cache = cache
        self._base = base
        self._fetcher = fetcher

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache: python-tuf is not made for two clients on one.

        Raises:
            TransientError: the disk is full.
            BrokenError: the cache cannot be used.
            explain: one of these.
        """
        try:
            places.make(self.cache)
            with locks.hold(self.cache / "lock", subject="trust", wait=True):
                yield
        except OSError as error:
            raise explain(error, name="the trust cache") from error

    def fetch_target(self, target: TargetFile, *, limit: int) -> Signed:
        """Return a verified target.

        Raises:
            TransientError: not there, or not the bytes that were signed.
            RejectedError: larger than any manifest may be.
            MalformedError: its hash is not one.
            explain: one of these.
        """
        if target.length > limit:
            raise RejectedError(
                f"{target.path} is said to have {target.length} bytes, "
                f"the limit is {limit}",
                code="too_large",
            )
        digest = target.hashes.get("sha256", "")
        if len(digest) != 64 or digest.strip("0123456789abcdef"):
            # it becomes a file name: a stolen release key may sign anything
            raise MalformedError(f"{target.path} has no usable sha256")
        path = self.cache / "manifests" / digest
        signed = self._stored(path, target)
        if signed is not None:
            return signed
        url = f"{self._base}{layout.target_file(target.path, digest)}"
        deadline_s = self._fetcher.deadline_s + target.length / MIN_RATE
        try:
            data = self._fetcher.get(
                url, limit=target.length, deadline_s=deadline_s, length=target.length
            )
            target.verify_length_and_hashes(data)
        except NotFoundError as error:
            raise TransientError(
                f"the repository has no {target.path}",
                means="a mirror or cache may be behind",
                do="updaterd tries again by itself",
                code="metadata_missing",
            ) from error
        except exceptions.LengthOrHashMismatchError as error:
            raise explain(error, name=target.path) from error
        self._keep(path, data)
        return self._stored(path, target) or Signed.of(data)

    @staticmethod
    def _stored(path: Path, target: TargetFile) -> Signed | None:
        """Return the file of an earlier attempt, when it is still what was signed."""
        try:
            with path.open("rb") as file:
                target.verify_length_and_hashes(file)
                return Signed(os.dup(file.fileno()))
        except (OSError, exceptions.LengthOrHashMismatchError):
            return None

    def _keep(self, path: Path, data: bytes) -> None:
        """Keep a manifest for the next attempt; only the few newest.

        Power cut: at worst it is fetched again; its hash is checked when read.
        """
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.publish_file(path, data, mode=0o600)
            aged = sorted(path.parent.iterdir(), key=lambda file: file.stat().st_mtime)
            for old in aged[:-_KEPT]:
                old.unlink(missing_ok=True)
        except OSError:
            return  # a full disk costs a request, no more
