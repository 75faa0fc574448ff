# SPDX-License-Identifier: Apache-2.0
"""What the repository's files say of channels and releases, for showing only.

No signature is checked here: the console shows what this server hands out, and machines
judge it themselves. What cannot be read is absent.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from updaterd.core import layout
from updaterd.core.channel import ChannelPointer, parse_custom
from updaterd.core.json_fields import Fields
from updaterd.core.manifest import parse
from updaterd.errors import MalformedError

_MOST_BYTES = 16 << 20
_MOST_ROLES = 64  # of releases: the large ones
_MOST_POINTERS = 512  # more than a page shows
_MOST_MANIFESTS = 256
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Signed:
    """Metadata of one role: its targets, and the keys that signed it."""

    targets: dict[str, Any]
    keys: tuple[str, ...]
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One release that a channel points to: its reach in percent, and urgency."""

    version: str
    reach: float
    urgency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What a channel offers, as it was signed.

    Attributes:
        is_paused: nothing new is installed.
        reason: why it is paused.
        offers: the newest first.
        whole: all of it, as machines read it; None: this updaterd cannot.
    """

    is_paused: bool
    reason: str
    offers: tuple[Offered, ...]
    whole: ChannelPointer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A release on one platform: its bundles, and what it brings.

    Attributes:
        platform: which.
        tree_bytes: of all its files.
        full_bytes: of the full bundle.
        deltas: where each starts, and its bytes.
        notes: by language.
    """

    platform: str
    tree_bytes: int
    full_bytes: int
    deltas: tuple[tuple[str, int], ...]
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A release as it was published: its keys, and each platform's build."""

    keys: tuple[str, ...]
    builds: tuple[Build, ...] = field(default=())


class Offers:
    """Reads a repository's files; each is read once while it does not change.

    Args:
        folder: the repository; None: it is served elsewhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._roles: OrderedDict[str, Signed] = OrderedDict()
        self._pointers: OrderedDict[str, Pointer] = OrderedDict()
        self._builds: OrderedDict[str, Build | None] = OrderedDict()

    def pointer(self, product: str, channel: str) -> Pointer | None:
        """Return what a channel offers, as it was signed; None: not to be seen here."""
        return self.pointers([(product, channel)])[0]

    def pointers(self, channels: Sequence[tuple[str, str]]) -> list[Pointer | None]:
        """Return what each of some channels offers, by one edition of the repository.

        Args:
            channels: product and channel of each.
        """
        versions = self._versions() if channels else {}
        return [self._pointer(*channel, versions) for channel in channels]

    def _pointer(
        self, product: str, channel: str, versions: Mapping[str, Any]
    ) -> Pointer | None:
        name = _name(layout.channel_role(product, channel), versions)
        if name is None:
            return None
        if name not in self._pointers:
            targets = self._read_role(name).targets
            custom = _member(targets, layout.channel(product, channel), "custom")
            if not custom:  # or not to be read just now: asked again
                return None
            self._pointers[name] = _pointer(custom, product, channel)
            while len(self._pointers) > _MOST_POINTERS:
                self._pointers.popitem(last=False)
        return self._pointers[name]

    def published(self, product: str, version: str) -> Published | None:
        """Return a release as it was published; None: not to be seen here."""
        folder = layout.release_folder(product, version)
        for role in (layout.releases_role(product), layout.archive_role(product)):
            signed = self._role(role)
            if signed is None:
                continue
            paths = sorted(path for path in signed.targets if path.startswith(folder))
            if paths:
                builds = (self._build(path, signed.targets[path]) for path in paths)
                return Published(
                    keys=signed.keys, builds=tuple(b for b in builds if b is not None)
                )
        return None

    def _role(self, role: str) -> Signed | None:
        """Return the present edition of a role."""
        name = _name(role, self._versions())
        if name is None:
            return None
        if name not in self._roles:
            signed = self._read_role(name)
            if not signed.targets:  # as above
                return signed
            self._roles[name] = signed
            while len(self._roles) > _MOST_ROLES:
                self._roles.popitem(last=False)
        return self._roles[name]

    def _read_role(self, name: str) -> Signed:
        document = self._json(f"{layout.METADATA}/{name}")
        keys = document.get("signatures")
        return Signed(
            targets=_member(document, "signed", "targets"),
            keys=tuple(
                str(key.get("keyid", ""))
                for key in (keys if isinstance(keys, list) else [])
                if isinstance(key, dict)
            ),
            expires=str(_member(document, "signed").get("expires", "")),
        )

    def _versions(self) -> Mapping[str, Any]:
        """Return the present edition of each role, by its file's name."""
        if self._folder is None:
            return {}
        stamp = self._json(f"{layout.METADATA}/{layout.TIMESTAMP}")
        newest = _member(stamp, "signed", "meta", layout.SNAPSHOT).get("version")
        if not isinstance(newest, int):
            return {}
        name = layout.role_file(layout.stem(layout.SNAPSHOT), newest)
        return _member(self._json(f"{layout.METADATA}/{name}"), "signed", "meta")

    def _build(self, path: str, target: object) -> Build | None:
        digest = _member(target, "hashes").get("sha256")
        if not isinstance(digest, str):
            return None
        file = layout.target_file(path, digest)
        if layout.digest_in(file) is None:
            return None
        if file not in self._builds:
            self._builds[file] = self._read_build(file)
            while len(self._builds) > _MOST_MANIFESTS:
                self._builds.popitem(last=False)
        return self._builds[file]

    def _read_build(self, file: str) -> Build | None:
        try:
            manifest = parse(self._bytes(file))
        except (MalformedError, OSError):
            return None
        return Build(
            platform=manifest.platform,
            tree_bytes=manifest.full.unpacked,
            full_bytes=manifest.full.length,
            deltas=tuple((d.from_version, d.length) for d in manifest.deltas),
            notes=manifest.notes,
        )

    def _json(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self._bytes(path))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def _bytes(self, path: str) -> bytes:
        """Return a file's content, as far as one of its kind can be large.

        Raises:
            OSError: it cannot be read.
        """
        assert self._folder is not None
        with (self._folder / path).open("rb") as file:
            return file.read(_MOST_BYTES)


def _name(role: str, versions: Mapping[str, Any]) -> str | None:
    """Return the file of a role's edition; None: there is none."""
    if "/" in role:
        return None
    version = _member(versions, layout.role_file(role)).get("version")
    return layout.role_file(role, version) if isinstance(version, int) else None


def _pointer(custom: dict[str, Any], product: str, channel: str) -> Pointer:
    releases = custom.get("releases")
    try:
        item = Fields(custom, "the channel")
        whole = parse_custom(item, product=product, channel=channel)
    except MalformedError:
        whole = None
    return Pointer(
        is_paused=custom.get("paused") is True,
        reason=str(custom.get("reason", ""))[:_LONGEST],
        offers=tuple(
            Offered(
                version=str(offer.get("version", ""))[:_LONGEST],
                reach=_percent(_member(offer, "rollout").get("permille")),
                urgency=str(offer.get("urgency", "normal"))[:_LONGEST],
            )
            for offer in (releases if isinstance(releases, list) else [])
            if isinstance(offer, dict)
        ),
        whole=whole,
    )


def _percent(permille: object) -> float:
    return permille / 10 if type(permille) is int and 0 <= permille <= 1000 else 0.0


def _member(value: object, *names: str) -> dict[str, Any]:
    """Return an object inside of objects; an empty one where there is none."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
