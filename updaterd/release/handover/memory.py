# SPDX-License-Identifier: Apache-2.0
"""Which versions a signer has signed: one must never stand for two contents."""

import json
from collections.abc import Mapping
from pathlib import Path

from updaterd import durable
from updaterd.errors import BrokenError

SIGNED = "signed.json"
"""In a workspace: the highest version of each role that was signed there."""


def read(memory: Path) -> dict[str, int]:
    """Return the highest version of each role that was signed here.

    Raises:
        BrokenError: it cannot be read: a version might be signed twice.
    """
    try:
        document = json.loads(memory.read_bytes())
        return {str(role): int(version) for role, version in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BrokenError(
            f"{memory} cannot be read: {error}",
            means="it says which versions were signed here; without it one might be "
            "signed twice, with other contents. Nothing was signed",
            do="bring it from a backup; or delete it, where all that was signed here "
            "is published",
            code="damaged_file",
        ) from error


def keep(memory: Path, highest: Mapping[str, int]) -> None:
    """Note the highest versions, before any of them is signed.

    Power cut: the old note or the new one.
    """
    durable.write_file(memory, json.dumps(highest).encode() + b"\n")
