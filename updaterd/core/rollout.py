# SPDX-License-Identifier: Apache-2.0
"""Which machines a rollout reaches, and when in its window each one starts.

Every release draws anew (its own salt), so no machine is always first; within one
release the cohort is fixed, so raising `permille` only adds machines.
"""

import hashlib

from updaterd.core.channel import Rollout

_COHORTS = 1000


def cohort(salt: str, machine_id: str) -> int:
    """Return the machine's cohort, 0..999: sha256(salt || machine id) mod 1000."""
    digest = hashlib.sha256((salt + machine_id).encode()).digest()
    return int.from_bytes(digest, "big") % _COHORTS


def is_reached(rollout: Rollout, machine_id: str) -> bool:
    """Tell whether the rollout includes this machine."""
    return cohort(rollout.salt, machine_id) < rollout.permille


def splay_s(rollout: Rollout, machine_id: str) -> float:
    """Return this machine's delay within the rollout's window, in seconds."""
    digest = hashlib.sha256(("splay" + rollout.salt + machine_id).encode()).digest()
    return rollout.window_s * (int.from_bytes(digest[:8], "big") / 2**64)
