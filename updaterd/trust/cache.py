# SPDX-License-Identifier: Apache-2.0
"""The trust cache: a lock for python-tuf's files, and manifests beside them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tuf.api import exceptions
from tuf.api.metadata import TargetFile

from updaterd import durable
from updaterd.core import layout
from updaterd.core.forms import Form
from updaterd.errors import MalformedError, RejectedError, TransientError
from updaterd.files import deletion, places, regular
from updaterd.net import MIN_RATE, Fetcher, NotFoundError
from updaterd.system import locks
from updaterd.trust.failures import explain
from updaterd.trust.signed import Signed

_KEPT = 2
"""Manifests that are here until they are kept beside a release."""


class Carrier(Protocol):
    """Who has manifests, or makes them of less than the whole."""

    def held(self, sha256: str) -> Path | None:
        """Return where this machine keeps a manifest beside a release; or None."""

    def make(
        self, sha256: str, length: int, forms: Sequence[Form], folder: Path
    ) -> Path | None:
        """Return a manifest made of one of its forms; None where there is no use.

        Args:
            sha256: what it has to be.
            length: likewise.
            forms: those that are named for it.
            folder: where it is made, and parts of forms are kept for another attempt.

        Raises:
            TransientError: not now; what came is kept.
        """


class Store:
    """The cache directory and the repository behind it.

    Args:
        cache: directory for verified metadata, 0700; may be deleted at any time.
        base: address of the directory that holds `metadata/` and `targets/`.
        fetcher: asks the network.
        carrier: who has manifests, or makes them of less than the whole.
    """

    def __init__(
        self, cache: Path, base: str, fetcher: Fetcher, carrier: Carrier | None = None
    ) -> None:
        self.cache = cache
        self._carrier = carrier
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

    def fetch_target(
        self, target: TargetFile, *, limit: int, forms: Sequence[Form] = ()
    ) -> Signed:
        """Return a verified target: what is here, made of a form, or fetched.

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
        signed = self._stored(path, target, cached=True) or self._carried(
            path, target, digest, forms
        )
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
        return self._stored(path, target, cached=True) or Signed.of(data)

    def _carried(
        self, path: Path, target: TargetFile, digest: str, forms: Sequence[Form]
    ) -> Signed | None:
        """Return what the carrier has of a target, or makes.

        Power cut: what was made is whole, or made again.
        """
        if self._carrier is None:
            return None
        held = self._carrier.held(digest)
        signed = self._stored(held, target) if held else None
        if signed is not None or not forms:
            return signed
        folder = self.cache / "forms"
        fresh = self._carrier.make(digest, target.length, forms, folder)
        if fresh is None:
            return None
        path.parent.mkdir(mode=0o700, exist_ok=True)
        durable.settle(fresh, path, mode=0o600)
        self._spare(path.parent)
        deletion.delete_tree(folder)
        return self._stored(path, target, cached=True)

    @staticmethod
    def _stored(
        path: Path, target: TargetFile, *, cached: bool = False
    ) -> Signed | None:
        """Return the file of an earlier attempt, when it is still what was signed."""
        try:
            with open(regular.opened(path), "rb") as file:
                target.verify_length_and_hashes(file)
                return Signed(os.dup(file.fileno()), path if cached else None)
        except (OSError, exceptions.LengthOrHashMismatchError):
            return None

    def _keep(self, path: Path, data: bytes) -> None:
        """Keep a manifest for the next attempt; only the few newest.

        Power cut: at worst it is fetched again; its hash is checked when read.
        """
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            durable.publish_file(path, data, mode=0o600)
            self._spare(path.parent)
        except OSError:
            return  # a full disk costs a request, no more

    @staticmethod
    def _spare(folder: Path) -> None:
        """Leave the newest manifests; the others were never installed, or are kept.

        Power cut: some are gone.
        """
        aged = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in aged[:-_KEPT]:
            old.unlink(missing_ok=True)
