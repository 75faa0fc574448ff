# SPDX-License-Identifier: Apache-2.0
"""What the guard of self-updates knows, apart from the journal: `guard.json`.

The journal may be moved away or made anew. A release of updaterd that was condemned
stays condemned all the same, and a `current` that a person removed stays removed. The
guard writes the file (packaging/private/guard.py); here it is only read.
"""

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from updaterd.core.dataclass import dataclass

_NAME = "guard.json"


@dataclass(frozen=True, slots=True)
class Condemned:
    """A release that was condemned; `seq` 0: it is not known."""

    version: str
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class GuardNote:
    """What is in it.

    Attributes:
        condemned: releases that it took back, by version.
        aside: a person removed `current`.
    """

    condemned: Mapping[str, Condemned] = field(default_factory=dict)
    aside: bool = False


def read(state: Path) -> GuardNote:
    """Return what the guard knows; nothing where there is none, or none to be read."""
    try:
        document = json.loads((state / _NAME).read_bytes())
    except (OSError, ValueError):
        return GuardNote()
    if not isinstance(document, dict):
        return GuardNote()
    rows = document.get("left")
    return GuardNote(
        condemned={
            str(version): _condemned(str(version), row)
            for version, row in (rows.items() if isinstance(rows, dict) else ())
            if isinstance(row, dict)
        },
        aside=document.get("aside") is True,
    )


def _condemned(version: str, row: Mapping[str, Any]) -> Condemned:
    seq = row.get("seq")
    return Condemned(
        version, seq if isinstance(seq, int) else 0, str(row.get("why", ""))
    )
