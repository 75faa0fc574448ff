# SPDX-License-Identifier: Apache-2.0
"""What the guard of self-updates knows, apart from the journal: `guard.json`.

The journal may be moved away or made anew. A release of updaterd that was condemned
stays condemned all the same, and a `current` that a person removed stays removed. The
guard writes the file (packaging/private/guard.py); here it is only read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAME = "guard.json"


@dataclass(frozen=True, slots=True)
class Left:
    """A release that was condemned; `seq` 0: it is not known."""

    version: str
    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class GuardNote:
    """What is in it.

    Attributes:
        left: condemned releases, by version.
        aside: a person removed `current`.
    """

    left: Mapping[str, Left] = field(default_factory=dict)
    aside: bool = False


def read(state: Path) -> GuardNote:
    """Return what the guard knows; nothing where there is none, or none to be read."""
    try:
        found = json.loads((state / _NAME).read_bytes())
    except (OSError, ValueError):
        return GuardNote()
    if not isinstance(found, dict):
        return GuardNote()
    left = found.get("left")
    return GuardNote(
        left={
            str(version): _left(str(version), said)
            for version, said in (left.items() if isinstance(left, dict) else ())
            if isinstance(said, dict)
        },
        aside=found.get("aside") is True,
    )


def _left(version: str, said: Mapping[str, Any]) -> Left:
    seq = said.get("seq")
    return Left(version, seq if isinstance(seq, int) else 0, str(said.get("why", "")))
