# SPDX-License-Identifier: Apache-2.0
"""What a kit is made of: `kit.toml`, and the files that it names.

The file is the product's configuration as `updaterd.toml` has it, with two tables
more: `[kit]` says what the package is called and brings beside it, `[updaterd]` where
updaterd itself comes from. `{root}` and `{target}` in the configuration and in units
stand for what differs between a machine's kit and a person's.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from updaterd.config import ConfigError, read
from updaterd.core.names import check_name
from updaterd.core.settings import Directories
from updaterd.core.toml_fields import Table
from updaterd.errors import BrokenError, MalformedError

TAKEN = frozenset({"feed", "release", "updaterd"})
"""Names whose system users, folders or units are another package's."""

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+~]{0,60}")
_PACKAGE = re.compile(
    r"updaterd[_-][0-9][^_/]*?[._](?P<arch>amd64|arm64|x86_64|aarch64)\.(deb|rpm)"
)
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}


class KitError(BrokenError):
    """A kit cannot be made of what its file says."""

    code = "kit"

    def __init__(
        self, cause: str, do: str = "", *, means: str = "no kit was written"
    ) -> None:
        super().__init__(
            cause,
            means=means,
            do=do or "correct the file (docs/kits.md)",
        )


@dataclass(frozen=True, slots=True)
class Package:
    """A package of updaterd itself.

    Attributes:
        machine: as uname(2) calls it.
    """

    path: Path
    machine: str
    sha256: str
    length: int

    @property
    def kind(self) -> str:
        """Return `deb` or `rpm`."""
        return self.path.suffix[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A kit, as described and checked.

    Attributes:
        settings: the fragment of the configuration, without the first root.
        units: text of each unit's file, by its name.
        desktop: the same of desktop files.
        url: where the packages will be fetched from; "": they are carried.
    """

    product: str
    version: str
    title: str
    summary: str
    publisher: str
    homepage: str
    user_root: str
    settings: Mapping[str, object]
    root: str
    units: Mapping[str, str]
    desktop: Mapping[str, str]
    has_units: bool
    url: str
    packages: tuple[Package, ...]
    bootstrap: bytes

    @property
    def name(self) -> str:
        """Return the package's name."""
        return f"{self.product}-setup"

    @property
    def daemon(self) -> str:
        """Return what the daemon's folders and user are called."""
        return f"updaterd-{self.product}"


def describe(path: Path, product: str, bootstrap: bytes) -> Kit:
    """Return the kit that a file describes.

    Args:
        path: `kit.toml`; files that it names are beside it.
        product: which product it is for.
        bootstrap: the repository's first root.

    Raises:
        KitError: it cannot be made so.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise KitError(
            f"cannot read {path}: {error.strerror}",
            "write it (docs/kits.md has one), or name another file by --kit",
        ) from error
    except ValueError as error:
        raise KitError(f"cannot read {path}: {error}") from error
    mistakes: list[str] = []
    kit = Table(document.pop("kit", None), "kit", mistakes)
    source = Table(document.pop("updaterd", None), "updaterd", mistakes)
    _check(path, product, document)
    version = kit.text("version", required=True)
    if version and not _VERSION.fullmatch(version):
        kit.wrong("version", 'must be like "1.2"')
    publisher = kit.text("publisher", required=True)
    if publisher and not re.fullmatch(r"[^<>\n]+ <[^<>\s]+@[^<>\s]+>", publisher):
        kit.wrong("publisher", 'must be like "Acme Ltd <it@acme.example>"')
    products = document["products"]
    described = Kit(
        product=product,
        version=version,
        title=kit.text("title", product),
        summary=kit.text("summary", f"Installs {product} and keeps it up to date"),
        publisher=publisher,
        homepage=kit.text("homepage"),
        user_root=kit.text("user_root", f"~/.local/opt/{product}"),
        settings=document,
        root=str(products[product]["root"]),
        units=_files(kit, "unit_files", path, mistakes),
        desktop=_files(kit, "desktop_files", path, mistakes),
        has_units=bool(products[product].get("units")),
        url=source.text("url").rstrip("/"),
        packages=_packages(source, path, mistakes),
        bootstrap=bootstrap,
    )
    if "\n" in f"{described.title}{described.summary}{described.homepage}":
        mistakes.append("title, summary and homepage are one line each")
    if not re.fullmatch(r"~/[A-Za-z0-9/_.+@-]+", described.user_root):
        kit.wrong("user_root", 'must be like "~/.local/opt/acme"')
    kit.done()
    source.done()
    if mistakes:
        raise KitError(f"{path}: {'; '.join(mistakes)}")
    return described


def _check(path: Path, product: str, document: dict[str, object]) -> None:
    """Check the configuration as the machine will.

    Raises:
        KitError: it would be refused.
    """
    try:
        check_name("product", product)
    except MalformedError as error:
        raise KitError(f"{error.cause}") from error
    if product in TAKEN:
        raise KitError(f"{product!r} is the name of something of updaterd's")
    products = document.get("products")
    if not isinstance(products, dict) or set(products) != {product}:
        raise KitError(
            f"{path} must have [products.{product}], and no other product",
            do="make a kit for each product",
        )
    trust = document.get("trust")
    if not isinstance(trust, dict) or "root" in trust:
        raise KitError(f"{path} must have [trust] with `repository`, without `root`")
    complete = filled(document, root=str(products[product].get("root")), target="x")
    with_root = {**complete, "trust": {**trust, "root": "/first.json"}}
    nowhere = PurePath("/")
    where = Directories(config=path, state=nowhere, cache=nowhere, runtime=nowhere)
    try:
        read(with_root, where)
    except ConfigError as error:
        raise KitError(str(error)) from error


def _files(kit: Table, key: str, path: Path, mistakes: list[str]) -> dict[str, str]:
    """Return the text of files that the kit brings."""
    texts = {}
    for word in kit.words(key):
        name = PurePath(word).name
        if not re.fullmatch(r"[A-Za-z0-9:_.@-]+", name):
            mistakes.append(f"kit.{key}: {word!r:.80} is no name of such a file")
            continue
        try:
            texts[name] = (path.parent / word).read_text("utf-8")
        except (OSError, ValueError) as error:
            mistakes.append(f"kit.{key}: cannot read {word}: {error}")
    return texts


def _packages(source: Table, path: Path, mistakes: list[str]) -> tuple[Package, ...]:
    """Return updaterd's packages, with the hashes that kits will want."""
    packages = []
    for word in source.words("packages"):
        file = path.parent / word
        match = _PACKAGE.fullmatch(file.name)
        if match is None:
            mistakes.append(
                f"updaterd.packages: {word!r:.80} is no package of updaterd"
            )
            continue
        try:
            data = file.read_bytes()
        except OSError as error:
            mistakes.append(f"updaterd.packages: {word}: {error.strerror}")
            continue
        machine = _ARCHES.get(match["arch"], match["arch"])
        digest = hashlib.sha256(data).hexdigest()
        packages.append(Package(file, machine, digest, len(data)))
    return tuple(packages)


def filled(value: Any, *, root: str, target: str) -> Any:
    """Return a value with `{root}` and `{target}` written out, in all its texts."""
    if isinstance(value, str):
        return value.replace("{root}", root).replace("{target}", target)
    if isinstance(value, dict):
        return {
            key: filled(inner, root=root, target=target) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [filled(inner, root=root, target=target) for inner in value]
    return value
