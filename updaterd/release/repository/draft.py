# SPDX-License-Identifier: Apache-2.0
"""A catalog to try changes in: files of targets stay in memory."""

from pathlib import Path

from tuf.api.metadata import TargetFile

from updaterd.release.repository.catalog import Catalog
from updaterd.release.repository.metadata import Repository


class Draft(Catalog):
    """A product's releases, and those that might be added; nothing is written.

    Args:
        repository: its roles; it cannot be committed any more.
        public: directory with `targets/`.
        product: name of the product.
    """

    def __init__(self, repository: Repository, public: Path, product: str) -> None:
        super().__init__(repository, public, product)
        repository.is_draft = True
        self._files: dict[str, bytes] = {}

    def _load(self, target: TargetFile) -> bytes:
        data = self._files.get(target.path)
        return super()._load(target) if data is None else data

    def _store(self, target: TargetFile, data: bytes) -> None:
        self._files[target.path] = data
