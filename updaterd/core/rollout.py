# SPDX-License-Identifier: Apache-2.0
"""Which machines a rollout reaches, and when in its window each one starts.

Every release draws anew (its own salt), so no machine is always first; within one
release the cohort is fixed, so raising `permille` only adds machines.
"""

import hashlib
from collections.abc import Collection

from updaterd.core.dataclass import dataclass

EVERYBODY = 1000
"""Of 1000 machines: the reach of a rollout that leaves nobody out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """`permille` of the machines, drawn by `salt`, over `window_s` seconds.

    Attributes:
        tags: machines that have one of them are reached as well.
    """

    permille: int = EVERYBODY
    salt: str = ""
    window_s: int = 0
    tags: tuple[str, ...] = ()


def salt_of(product: str, version: str, seq: int) -> str:
    """Return the draw of a release: another for each, the same for its pace."""
    return hashlib.sha256(f"{product}/{version}/{seq}".encode()).hexdigest()[:16]


def cohort(salt: str, machine_id: str) -> int:
    """Return the machine's cohort, 0..999: sha256(salt || machine id) mod 1000."""
    digest = hashlib.sha256((salt + machine_id).encode()).digest()
    return int.from_bytes(digest, "big") % EVERYBODY


def is_reached(rollout: Rollout, machine_id: str, tags: Collection[str] = ()) -> bool:
    """Tell whether the rollout includes this machine."""
    return cohort(rollout.salt, machine_id) < rollout.permille or any(
        tag in rollout.tags for tag in tags
    )


def splay_s(rollout: Rollout, machine_id: str) -> float:
    """Return this machine's delay within the rollout's window, in seconds."""
    digest = hashlib.sha256(("splay" + rollout.salt + machine_id).encode()).digest()
    return rollout.window_s * (int.from_bytes(digest[:8], "big") / 2**64)
