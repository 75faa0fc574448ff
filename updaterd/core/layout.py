# SPDX-License-Identifier: Apache-2.0
"""The layout of a repository: what its files and its roles are called.

    metadata/timestamp.json                          the one file that is replaced
    metadata/7.root.json, metadata/7.ROLE.json       editions of every other role
    targets/PRODUCT/releases/VERSION/HASH.PLATFORM.json
    targets/PRODUCT/channels/HASH.CHANNEL.json
    blobs/sha256/ab/ab...                            bundles, named by their content

All of them under one folder, which some address serves as it is. (How a product lies on
a machine is another thing: `install/layout.py`.)
"""

import re
from collections.abc import Iterable

METADATA, TARGETS, BLOBS = "metadata", "targets", "blobs"
BLOB_FOLDER = f"{BLOBS}/sha256"
FOLDERS = (METADATA, TARGETS, BLOB_FOLDER)
"""What a new repository consists of."""

_SUFFIX = ".json"
ROOT = f"root{_SUFFIX}"
TIMESTAMP = f"timestamp{_SUFFIX}"
SNAPSHOT = f"snapshot{_SUFFIX}"

_RELEASES, _ARCHIVE, _CHANNELS = "releases", "archive", "channels"
RESERVED = (_RELEASES, _ARCHIVE)
"""Roles of every product; no channel can be called so."""


def blob(digest: str) -> str:
    """Return the path of a blob by its SHA-256."""
    return f"{BLOB_FOLDER}/{digest[:2]}/{digest}"


def role_file(role: str, version: int | None = None) -> str:
    """Return the name of a role's file: one of its editions, or the present one."""
    return f"{role}{_SUFFIX}" if version is None else f"{version}.{role}{_SUFFIX}"


def stem(name: str) -> str:
    """Return the role or the platform that a file is named after."""
    return name.removesuffix(_SUFFIX)


def edition(name: str, role: str) -> int | None:
    """Return which edition of a role a file is; None: it is none."""
    number, dot, rest = name.partition(".")
    return int(number) if dot and rest == role_file(role) and number.isdigit() else None


def release(product: str, version: str, platform: str) -> str:
    """Return the target path of a release's manifest."""
    return f"{release_folder(product, version)}{platform}{_SUFFIX}"


def release_folder(product: str, version: str) -> str:
    """Return what the target paths of a release begin with, on every platform."""
    return f"{product}/{_RELEASES}/{version}/"


def release_of(path: str) -> tuple[str, str]:
    """Return the version and the platform of a manifest, by its target path.

    Raises:
        ValueError: it is no manifest's.
    """
    _, _, version, name = path.split("/")
    return version, stem(name)


def any_release(product: str) -> str:
    """Return the pattern of all target paths that the release key signs."""
    return f"{product}/{_RELEASES}/*/*"


def channel(product: str, name: str) -> str:
    """Return the target path of a channel's pointer."""
    return f"{product}/{_CHANNELS}/{name}{_SUFFIX}"


def target_file(path: str, digest: str) -> str:
    """Return the path of a target's file (consistent snapshots, TUF 6.2)."""
    folder, _, name = path.rpartition("/")
    return f"{TARGETS}/{folder}/{digest}.{name}"


def releases_role(product: str) -> str:
    """Return the role of a product's newest releases."""
    return f"{product}.{_RELEASES}"


def archive_role(product: str) -> str:
    """Return the role of a product's older releases."""
    return f"{product}.{_ARCHIVE}"


def channel_role(product: str, channel: str) -> str:
    """Return the role of a channel."""
    return f"{product}.{channel}"


def is_channel(role: str) -> bool:
    """Tell whether a role is a channel's."""
    return "." in role and product_of(role) is None and not is_archive(role)


def is_archive(role: str) -> bool:
    """Tell whether a role is a product's older releases."""
    return role.endswith(f".{_ARCHIVE}")


def product_of(role: str) -> str | None:
    """Return the product whose newest releases a role lists; None: it is another's."""
    product = role.removesuffix(f".{_RELEASES}")
    return product if product != role else None


def platform(machine: str) -> str:
    """Return the name of a platform: `linux-x86_64`, `linux-aarch64`.

    Args:
        machine: as uname(2) calls the hardware.
    """
    return f"linux-{machine.lower()}"


_BLOB = rf"{BLOB_FOLDER}/(?P<fan>[0-9a-f]{{2}})/(?P<blob>(?P=fan)[0-9a-f]{{62}})"
_EDITION = rf"{METADATA}/\d+\.[^/]+\.json"
_HASHED = rf"{TARGETS}/(?:[^/]+/)*(?P<target>[0-9a-f]{{64,128}})\.[^/]+"
_ANY = rf"{METADATA}/[^/]+\.json|{TARGETS}/(?:[^/]+/)*[^/]+\.json|{_BLOB}"


def digest_in(path: str) -> str | None:
    """Return the hash that a path is named after; None: it is not named so."""
    match = re.fullmatch(f"{_BLOB}|{_HASHED}", path)
    return match and (match["blob"] or match["target"])


def is_edition(path: str) -> bool:
    """Tell whether a path is one edition of signed metadata, which never changes."""
    return re.fullmatch(_EDITION, path) is not None


def is_file(path: str) -> bool:
    """Tell whether a path can be a repository's file: metadata, target or blob."""
    return re.fullmatch(_ANY, path) is not None


def files_of(roles: Iterable[str], products: Iterable[str]) -> re.Pattern[str]:
    """Return the paths that only a repository of these roles and products has.

    Roots are not among them: they are never anybody's to delete.
    """
    names = "|".join(re.escape(role) for role in roles if role != stem(ROOT))
    owners = "|".join(re.escape(product) for product in products) or "(?!)"
    return re.compile(
        rf"{METADATA}/(\d+\.)?({names})\.json"
        rf"|{TARGETS}/({owners})/({_RELEASES}/[^/]+|{_CHANNELS})"
        rf"/[0-9a-f]{{64}}\.[^/]+\.json"
        rf"|{_BLOB}"
    )
