# SPDX-License-Identifier: Apache-2.0
"""Which releases a repository holds: read from its roles and manifests, added to them.

The role `PRODUCT.releases` keeps the newest `KEPT` releases, `PRODUCT.archive` the
older ones, so that what a client downloads does not grow with a product's history.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, TargetFile

from updaterd import durable
from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.core import pace as paces
from updaterd.core.json_fields import Fields
from updaterd.core.manifest import Manifest
from updaterd.core.pace import Pace
from updaterd.errors import BrokenError, MalformedError, RejectedError
from updaterd.release.repository import labels
from updaterd.release.repository.labels import Label
from updaterd.release.repository.metadata import Repository

KEPT = 20
LAST_SEQ = 2**52
"""No publisher counts so far: a seq beyond it was signed to spoil the order, and is
not counted on from once it is yanked."""
SEQ = "x-updaterd-seq"
"""The highest seq ever given: a yanked release's must not be given again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One manifest that a role lists."""

    version: str
    platform: str
    seq: int
    role: str
    target: TargetFile
    from_seq_min: int = 0
    at: int = 0
    pace: Pace | None = None


def _pace(custom: dict[str, Any], path: str) -> Pace | None:
    """Return the pace that a role repeats of a manifest; None: none, or no pace."""
    try:
        item = Fields(custom, path)
        return paces.read(item.fields("pace")) if "pace" in item else None
    except MalformedError:
        return None  # machines go by the manifest


class Releases:
    """The releases of one product.

    Args:
        repository: its roles.
        public: directory with `targets/`.
        product: name of the product.

    Attributes:
        product: name of the product.
    """

    def __init__(self, repository: Repository, public: Path, product: str) -> None:
        self._repository = repository
        self._public = public
        self.product = product
        self._main = layout.releases_role(product)
        self._old = layout.archive_role(product)

    @property
    def roles(self) -> tuple[str, str]:
        """Return the roles that list releases."""
        return self._main, self._old

    @property
    def now(self) -> int:
        """Return the time that is signed with, in Unix seconds."""
        return int(self._repository.now.timestamp())

    def listed(self, *, archived: bool = True) -> tuple[Listed, ...]:
        """Return all manifests, the highest `seq` first.

        Raises:
            BrokenError: there is no such product.
        """
        names = (self._main, self._old) if archived else (self._main,)
        entries = [entry for name in names for entry in self._of(name)]
        return tuple(sorted(entries, key=lambda entry: entry.seq, reverse=True))

    def _of(self, role: str) -> Iterator[Listed]:
        for path, target in self._repository.targets(role).targets.items():
            version, platform = layout.release_of(path)
            custom: dict[str, Any] = target.unrecognized_fields.get("custom", {})
            yield Listed(
                version=version,
                platform=platform,
                seq=int(custom.get("seq", 0)),
                from_seq_min=int(custom.get("from_seq_min", 0)),
                at=int(custom.get("at", 0)),
                pace=_pace(custom, path),
                role=role,
                target=target,
            )

    def pace(self, version: str, platforms: Collection[str] | None) -> Pace | None:
        """Return the pace of a release that is not over, for what a channel says.

        Of several platforms the one that is over first: each manifest says its own, and
        what a channel says beyond that would keep machines waiting for nothing.
        """
        paces = [
            entry.pace
            for entry in self.listed()
            if entry.version == version
            and (platforms is None or entry.platform in platforms)
        ]
        running = [p for p in paces if p is not None and p.ends_at > self.now]
        if len(running) < len(paces):
            return None
        return min(running, key=lambda pace: pace.ends_at, default=None)

    def find(self, version: str, platform: str | None = None) -> Listed | None:
        """Return a release, on any platform unless one is named."""
        return next(
            (
                entry
                for entry in self.listed()
                if entry.version == version and platform in {None, entry.platform}
            ),
            None,
        )

    def require(self, version: str) -> Listed:
        """Return a release.

        Raises:
            BrokenError: there is none of this version.
        """
        entry = self.find(version)
        if entry is None:
            raise BrokenError(
                f"there is no release {version} of {self.product}",
                do="`updaterd release status` lists them",
                code="no_such_release",
            )
        return entry

    def next_seq(self) -> int:
        """Return the next place in the order.

        Raises:
            BrokenError: a listed release has the last place that there is.
        """
        role = self._repository.targets(self._main)
        highest = int(role.unrecognized_fields.get(SEQ, 0))
        listed = max((entry.seq for entry in self.listed()), default=0)
        if listed >= LAST_SEQ:
            raise BrokenError(
                f"a release of {self.product} has seq {listed}",
                means="no publisher reaches that number by counting: a stolen release "
                "key may have signed it, and no release can follow it",
                do="replace the key (`updaterd release keys rotate`), then `updaterd "
                "release yank` that release",
                code="seq_exhausted",
            )
        return max(highest if highest < LAST_SEQ else 0, listed) + 1

    def path(self, target: TargetFile) -> Path:
        """Return where the file of a target is (consistent snapshots: 6.2)."""
        return self._public / layout.target_file(target.path, target.hashes["sha256"])

    def manifest(self, entry: Listed) -> Manifest:
        """Return a listed manifest.

        Raises:
            BrokenError: its file is missing or damaged.
        """
        path = self.path(entry.target)
        try:
            raw = self._load(entry.target)
            entry.target.verify_length_and_hashes(raw)
            return manifests.parse(raw, where=str(path))
        except Exception as error:
            raise BrokenError(
                f"cannot read the manifest {path}: {error}",
                do="restore it from a mirror",
                code="repository_unreadable",
            ) from error

    def _load(self, target: TargetFile) -> bytes:
        return self.path(target).read_bytes()

    def newest(self, platform: str, count: int, below: int) -> tuple[Manifest, ...]:
        """Return the newest manifests of a platform, `seq` under `below`."""
        entries = [
            entry
            for entry in self.listed(archived=False)
            if entry.platform == platform and entry.seq < below
        ]
        return tuple(self.manifest(entry) for entry in entries[:count])

    def add(self, manifest: Manifest) -> None:
        """Enter a release, and move the oldest to the archive.

        Raises:
            RejectedError: this version exists, or no machine would accept it.

        Power cut: the manifest's file is whole or absent; no role names it yet.
        """
        existing = self.find(manifest.version, manifest.platform)
        if existing is not None:
            raise RejectedError(
                f"{manifest.product} {manifest.version} for {manifest.platform} exists",
                means="a published release never changes",
                do="publish under a new version",
                code="release_exists",
            )
        name = layout.release(manifest.product, manifest.version, manifest.platform)
        self.check_label(manifest.version, manifest.platform, manifest.tree)
        raw = manifest.encode()
        manifests.parse(raw)  # never sign what every machine would refuse
        highest = max(manifest.seq, self.next_seq() - 1)
        at = int(self._repository.now.timestamp())
        more: dict[str, object] = {}
        if manifest.from_seq_min:
            more["from_seq_min"] = manifest.from_seq_min
        if manifest.pace is not None:
            more["pace"] = manifest.pace.as_member()
        target = self._write(name, raw, {"seq": manifest.seq, "at": at, **more})
        with self._repository.edit(self._main) as role:
            role.targets[name] = target
            role.unrecognized_fields[SEQ] = highest
        self._archive()

    def write(self, manifest: Manifest) -> None:
        """Put a manifest into its place, without entering it.

        Power cut: the file is whole or absent; no role names it yet.
        """
        name = layout.release(manifest.product, manifest.version, manifest.platform)
        self._write(name, manifest.encode(), {"seq": manifest.seq})

    def adopt(self, role: str, metadata: Metadata[Any]) -> None:
        """Take a role of this product that was signed elsewhere."""
        self._repository.adopt(role, metadata)

    def _archive(self) -> None:
        entries = self.listed(archived=False)
        versions = list(dict.fromkeys(entry.version for entry in entries))
        surplus = set(versions[KEPT:])
        if not surplus:
            return
        with (
            self._repository.edit(self._main) as main,
            self._repository.edit(self._old) as old,
        ):
            for entry in entries:
                if entry.version in surplus:
                    old.targets[entry.target.path] = main.targets.pop(entry.target.path)

    def withdrawn(self, version: str) -> Label | None:
        """Return what is kept of a label that was withdrawn once, listed now or not."""
        fields = self._repository.targets(self._old).unrecognized_fields
        return labels.read(fields.get(labels.FIELD), version)

    def check_label(self, version: str, platform: str, tree: str) -> None:
        """Make sure that a label was never another tree's.

        Raises:
            RejectedError: it was, before that release was withdrawn.
        """
        label = self.withdrawn(version)
        if label is None or label.trees.get(platform, tree) == tree:
            return
        raise RejectedError(
            f"{self.product} {version} was withdrawn, and had other contents",
            means="machines that have it know it by this label: with other contents "
            "they could neither replace nor repair it",
            do="release under a new version",
            code="release_exists",
        )

    def drop(self, version: str) -> int:
        """Take a release out of the roles, on every platform; return how many.

        Its label stays taken: see `labels`.
        """
        entries = [entry for entry in self.listed() if entry.version == version]
        if not entries:
            return 0
        trees = [(entry.platform, self._tree(entry)) for entry in entries]
        for entry in entries:
            with self._repository.edit(entry.role) as role:
                del role.targets[entry.target.path]
        with self._repository.edit(self._old) as role:
            role.unrecognized_fields[labels.FIELD] = labels.remembering(
                role.unrecognized_fields.get(labels.FIELD),
                version,
                entries[0].seq,
                trees,
            )
        return len(entries)

    def _tree(self, entry: Listed) -> str:
        """Return the tree of a listed release; empty where nobody knows any more."""
        try:
            return self.manifest(entry).tree
        except BrokenError:
            return ""

    def releases(self) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
        """Return the `seq` of every listed release, and its platforms."""
        listed = self.listed()
        made_for: dict[str, tuple[str, ...]] = {}
        for entry in listed:
            names = (*made_for.get(entry.version, ()), entry.platform)
            made_for[entry.version] = tuple(sorted(names))
        return {entry.version: entry.seq for entry in listed}, made_for

    def _write(self, path: str, data: bytes, custom: dict[str, Any]) -> TargetFile:
        digest = hashlib.sha256(data).hexdigest()
        target = TargetFile(len(data), {"sha256": digest}, path, {"custom": custom})
        self._store(target, data)
        return target

    def _store(self, target: TargetFile, data: bytes) -> None:
        final = self.path(target)
        durable.make_dir(final.parent)
        durable.write_file(final, data, mode=0o644)
