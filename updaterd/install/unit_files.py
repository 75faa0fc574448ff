# SPDX-License-Identifier: Apache-2.0
"""Check that a product's unit files are root's: else the daemon's user could be root.

Who may restart a unit and write its file runs anything as anybody. So a grant names
units only whose file is there, stands where root or a package puts it, and is no
link to elsewhere.
"""

from pathlib import Path

from updaterd.core.grants import FRAGMENTS
from updaterd.core.settings import Settings
from updaterd.files import ownership

_ROOT = frozenset({0})


def faults(settings: Settings, folders: tuple[str, ...] = FRAGMENTS) -> list[str]:
    """Return which units of the products cannot be granted, and why."""
    return [
        f"products.{name}.units: {unit} {reason}"
        for name, product in sorted(settings.products.items())
        for unit in product.units
        if (reason := fault(unit, folders))
    ]


def fault(unit: str, folders: tuple[str, ...] = FRAGMENTS) -> str:
    """Return why a unit cannot be granted, or nothing.

    Args:
        unit: its name; an instance may have the file of its template.
        folders: where files of units are, the first counts.
    """
    before, at, after = unit.partition("@")
    template = f"{before}@.{after.rpartition('.')[2]}" if at else unit
    for name in dict.fromkeys((unit, template)):
        for folder in folders:
            path = Path(folder, name)
            if path.is_symlink():
                return (
                    f"is a link ({path}), to what others may write or to nothing: "
                    "put the file itself there"
                )
            if path.exists():
                return ownership.fault(path, _ROOT)
    return f"is not there: install its file first, in {folders[0]} or by a package"
