# SPDX-License-Identifier: Apache-2.0
"""Findings on the machine: units, grants, folders, commands. Nothing is changed."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from updaterd import config
from updaterd.artifact.worker import parent
from updaterd.cli.config.finding import Finding, of_error
from updaterd.core.settings import Product, Settings
from updaterd.errors import UpdaterError
from updaterd.files import ownership, places, roots, volumes
from updaterd.install import commands
from updaterd.install.restart_systemd import Systemd

UNIT_PROPERTIES = "LoadState,User,ReadWritePaths,ProtectSystem"
_GRANT = "run `updaterd config grant --write` as root, then restart updaterd"


def findings(
    settings: Settings, *, manager: Systemd, unit: Mapping[str, str]
) -> list[Finding]:
    """Return what on this machine would keep updates away.

    Args:
        settings: the settings.
        manager: the service manager.
        unit: properties of the daemon's unit; empty when there is none.
    """
    trusted = ownership.owners(settings.directories.state)
    results = list(_folders(settings, unit))
    for product in settings.products.values():
        results += _root(product, unit, trusted)
        results += _commands(product)
        results += _units(product, manager)
    return results


def notes(settings: Settings) -> Iterator[str]:
    """Return what could not be tested yet, and what a person should know."""
    for product in settings.products.values():
        yield from _mounts(product)
        for purpose, argv in commands.configured(product):
            if _comes_with_a_release(product, argv[0]):
                yield f"{purpose}: {argv[0]} comes with the first release, not tested"


def _mounts(product: Product) -> Iterator[str]:
    """Yield where something is mounted below a product's root, and what that means."""
    releases = Path(product.root) / "releases"
    for place in volumes.mounted_below(releases):
        if Path(place) == releases.resolve():
            yield f"{product.name}: {place} is mounted; releases are built there"
        else:
            yield (
                f"{product.name}: another file system is mounted on {place}; the "
                "release that it is in is neither deleted nor repaired"
            )


def cage() -> dict[str, Any]:
    """Return which layers the cage of the bundle opener has here.

    With `missing`, a sentence for each that leaves something open.
    """
    with tempfile.TemporaryDirectory(prefix="updaterd-check-") as folder:
        confined = parent.probe(folder)
    if confined is not None:
        return confined.document()
    return {
        "layers": "none",
        "missing": ["no cage can be built: no bundle can be opened here"],
    }


def unsafe_roots(settings: Settings) -> list[str]:
    """Return which products' roots others could write or put another in place of."""
    trusted = ownership.owners(settings.directories.state)
    return [
        fault
        for product in settings.products.values()
        if (fault := _unsafe_root(product, trusted))
    ]


def _unsafe_root(product: Product, trusted: frozenset[int]) -> str:
    try:
        roots.check(product, trusted)
    except roots.UnsafeRootError as error:
        return error.cause
    return ""


def _folders(settings: Settings, unit: Mapping[str, str]) -> Iterator[Finding]:
    where = settings.directories
    for code, folder in (
        ("state_unusable", Path(where.state)),
        ("cache_unusable", Path(where.cache)),
        ("not_writable", Path(where.runtime)),
    ):
        by_unit = unit and config.system_name(Path(where.config)) == folder.name
        if (by_unit and not folder.exists()) or _can_write(folder):
            continue  # systemd makes it when it starts the unit
        yield Finding(
            code=code,
            cause=f"{folder} cannot be written by this user",
            do=places.advice(folder, None),
        )


def _can_write(folder: Path) -> bool:
    """Tell whether a folder is usable, or could be made."""
    if os.path.lexists(folder):
        return places.is_usable(folder)
    existing = folder.parent
    while not existing.exists():
        existing = existing.parent
    return places.is_usable(existing)


def _root(
    product: Product, unit: Mapping[str, str], trusted: frozenset[int]
) -> Iterator[Finding]:
    root = Path(product.root)
    key = f"products.{product.name}.root"
    if fault := _unsafe_root(product, trusted):
        yield Finding(
            code=roots.UnsafeRootError.code,
            cause=f"{key}: {fault}",
            do="let root or the daemon's user alone write the folders that lead to it",
        )
    if not _can_write(root):
        yield Finding(
            code="not_writable",
            cause=f"{key}: {root} cannot be written by the daemon's user",
            do=_GRANT,
        )
    elif unit.get("ProtectSystem") == "strict" and not _is_below(
        root, unit.get("ReadWritePaths", "")
    ):
        yield Finding(
            code="not_writable",
            cause=f"{key}: {root} is read-only for the daemon's unit",
            do=_GRANT,
        )


def _is_below(root: Path, listed: str) -> bool:
    """Tell whether a root is below one of the paths that a unit may write."""
    return any(
        root.is_relative_to(word.lstrip("-+!"))
        for word in listed.split()
        if word.lstrip("-+!").startswith("/")
    )


def _comes_with_a_release(product: Product, program: str) -> bool:
    nothing_yet = not os.path.lexists(Path(product.root) / "current")
    return nothing_yet and Path(program).is_relative_to(product.root)


def _commands(product: Product) -> Iterator[Finding]:
    for purpose, argv in commands.configured(product):
        program = argv[0]
        if _comes_with_a_release(product, program):
            continue
        if shutil.which(program, path=commands.PATH) is None:
            missing = not os.path.exists(program)
            how = "is not there" if missing else "cannot be run by the daemon's user"
            yield Finding(
                code="no_such_command",
                cause=f"{purpose}: {program} {how}",
                do="correct the configuration, or install it with the right to run it",
            )


def _units(product: Product, manager: Systemd) -> Iterator[Finding]:
    for unit in product.units:
        try:
            manager.check([unit])
            manager.check_right(unit)
        except UpdaterError as error:
            yield of_error(f"products.{product.name}.units", error)
