"""Which releases a repository holds: read from its roles and manifests, added to them.

The role `PRODUCT.releases` keeps the newest `KEPT` releases, `PRODUCT.archive` the
older ones, so that what a client downloads does not grow with a product's history.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import TargetFile

from updaterd import durable
from updaterd.core import channel as channels
from updaterd.core import manifest as manifests
from updaterd.core.channel import ChannelPointer
from updaterd.core.manifest import Manifest
from updaterd.core.wire import Fields, encode
from updaterd.errors import BrokenError, RejectedError
from updaterd.release.repository import Repository

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


class Catalog:
    """The releases of one product.

    Args:
        repository: its roles.
        public: directory with `targets/`.
        product: name of the product.
    """

    def __init__(self, repository: Repository, public: Path, product: str) -> None:
        self._repository = repository
        self._targets = public / "targets"
        self._product = product
        self._main = f"{product}.releases"
        self._old = f"{product}.archive"

    def listed(self, *, archived: bool = True) -> tuple[Listed, ...]:
        """Return all manifests, the highest `seq` first.

        Raises:
            BrokenError: there is no such product.
        """
        names = (self._main, self._old) if archived else (self._main,)
        found = [each for name in names for each in self._of(name)]
        return tuple(sorted(found, key=lambda each: each.seq, reverse=True))

    def _of(self, role: str) -> Iterator[Listed]:
        for path, target in self._repository.targets(role).targets.items():
            _, _, version, name = path.split("/")
            custom: dict[str, Any] = target.unrecognized_fields.get("custom", {})
            yield Listed(
                version=version,
                platform=name.removesuffix(".json"),
                seq=int(custom.get("seq", 0)),
                role=role,
                target=target,
            )

    def find(self, version: str, platform: str | None = None) -> Listed | None:
        """Return a release, on any platform unless one is named."""
        return next(
            (
                each
                for each in self.listed()
                if each.version == version and platform in {None, each.platform}
            ),
            None,
        )

    def require(self, version: str) -> Listed:
        """Return a release.

        Raises:
            BrokenError: there is none of this version.
        """
        found = self.find(version)
        if found is None:
            raise BrokenError(
                f"there is no release {version} of {self._product}",
                do="`updaterd release status` lists them",
                code="no_such_release",
            )
        return found

    def next_seq(self) -> int:
        """Return the next place in the order.

        Raises:
            BrokenError: a listed release has the last place that there is.
        """
        role = self._repository.targets(self._main)
        said = int(role.unrecognized_fields.get(SEQ, 0))
        listed = max((each.seq for each in self.listed()), default=0)
        if listed >= LAST_SEQ:
            raise BrokenError(
                f"a release of {self._product} has seq {listed}",
                means="nobody counts so far: a stolen release key may have signed it, "
                "and nothing can come after it",
                do="replace the key (`updaterd release keys rotate`), then `updaterd "
                "release yank` that release",
                code="seq_exhausted",
            )
        return max(said if said < LAST_SEQ else 0, listed) + 1

    def path(self, target: TargetFile) -> Path:
        """Return where the file of a target is (consistent snapshots: 6.2)."""
        folder, _, name = target.path.rpartition("/")
        return self._targets / folder / f"{target.hashes['sha256']}.{name}"

    def manifest(self, each: Listed) -> Manifest:
        """Return a listed manifest.

        Raises:
            BrokenError: its file is missing or damaged.
        """
        path = self.path(each.target)
        try:
            raw = path.read_bytes()
            each.target.verify_length_and_hashes(raw)
            return manifests.parse(raw, where=str(path))
        except Exception as error:
            raise BrokenError(
                f"cannot read the manifest {path}: {error}",
                do="restore it from a mirror",
                code="repository_unreadable",
            ) from error

    def newest(self, platform: str, count: int, below: int) -> tuple[Manifest, ...]:
        """Return the newest manifests of a platform, `seq` under `below`."""
        found = [
            each
            for each in self.listed(archived=False)
            if each.platform == platform and each.seq < below
        ]
        return tuple(self.manifest(each) for each in found[:count])

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
        name = (
            f"{manifest.product}/releases/{manifest.version}/{manifest.platform}.json"
        )
        raw = manifest.encode()
        manifests.parse(raw)  # never sign what every machine would refuse
        highest = max(manifest.seq, self.next_seq() - 1)
        target = self._write(name, raw, {"seq": manifest.seq})
        with self._repository.edit(self._main) as role:
            role.targets[name] = target
            role.unrecognized_fields[SEQ] = highest
        self._archive()

    def _archive(self) -> None:
        entries = self.listed(archived=False)
        versions = list(dict.fromkeys(each.version for each in entries))
        surplus = set(versions[KEPT:])
        if not surplus:
            return
        with (
            self._repository.edit(self._main) as main,
            self._repository.edit(self._old) as old,
        ):
            for each in entries:
                if each.version in surplus:
                    old.targets[each.target.path] = main.targets.pop(each.target.path)

    def drop(self, version: str) -> int:
        """Take a release out of the roles, on every platform; return how many."""
        gone = [each for each in self.listed() if each.version == version]
        for each in gone:
            with self._repository.edit(each.role) as role:
                del role.targets[each.target.path]
        return len(gone)

    def pointer(self, channel: str) -> ChannelPointer:
        """Return what a channel offers now; nothing, when it never did.

        Raises:
            BrokenError: there is no such channel.
        """
        role = self._repository.targets(f"{self._product}.{channel}")
        path = f"{self._product}/channels/{channel}.json"
        target = role.targets.get(path)
        if target is None:
            return ChannelPointer(
                product=self._product,
                channel=channel,
                paused=False,
                floor_seq=0,
                releases=(),
            )
        custom = Fields(target.unrecognized_fields["custom"], path)
        return channels.parse_custom(custom, product=self._product, channel=channel)

    def channels(self) -> tuple[str, ...]:
        """Return the names of the product's channels."""
        prefix = self._product + "."
        return tuple(
            sorted(
                role.removeprefix(prefix)
                for role in self._repository.roles
                if role.startswith(prefix) and role not in {self._main, self._old}
            )
        )

    def point(self, pointer: ChannelPointer) -> None:
        """Enter what a channel offers.

        Raises:
            RejectedError: no machine would accept it.

        Power cut: the pointer's file is whole or absent; no role names it yet.
        """
        custom = pointer.as_custom()
        path = f"{self._product}/channels/{pointer.channel}.json"
        channels.parse_custom(
            Fields(custom, "the channel"),
            product=self._product,
            channel=pointer.channel,
        )
        target = self._write(path, encode(custom), custom)
        with self._repository.edit(f"{self._product}.{pointer.channel}") as role:
            role.targets[path] = target

    def _write(self, path: str, data: bytes, custom: dict[str, Any]) -> TargetFile:
        digest = hashlib.sha256(data).hexdigest()
        target = TargetFile(len(data), {"sha256": digest}, path, {"custom": custom})
        final = self.path(target)
        final.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(final, data, mode=0o644)
        return target


def products(repository: Repository) -> tuple[str, ...]:
    """Return the names of the products that the repository delegates to."""
    return tuple(
        sorted(
            role.removesuffix(".releases")
            for role in repository.roles
            if role.endswith(".releases")
        )
    )
