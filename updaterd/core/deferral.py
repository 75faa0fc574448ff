# SPDX-License-Identifier: Apache-2.0
"""What keeps a staged release back, by name, and for how long at most.

Apart from the rule (`core/activation.py`): the idle daemon shows what waits, and
decides nothing.
"""

import math

AT_ONCE, ON_REQUEST, AT_EXIT, WINDOW = "at-once", "on-request", "at-exit", "window"
MODES = (AT_ONCE, ON_REQUEST, AT_EXIT, WINDOW)

WAITS = frozenset({
    "inhibited", "postponed", "waits_for_request", "waits_for_exit",
    "waits_for_window",
})  # fmt: skip
"""Codes of decisions about a release that is staged and only has to be activated."""


def deadline(pending_since: float | None, max_deferral_s: float) -> float:
    """Return when a release is activated, whatever asks it to wait."""
    return math.inf if pending_since is None else pending_since + max_deferral_s
