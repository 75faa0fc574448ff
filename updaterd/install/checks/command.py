# SPDX-License-Identifier: Apache-2.0
"""`command`: a program of the owner's or of the release ends with 0."""

from updaterd.core.settings import Health
from updaterd.core.text import printable
from updaterd.install.checks.kind import Means
from updaterd.install.process import Output, run


def fault(health: Health, means: Means, *, left_s: float) -> str:
    """Run it; return how it failed, or nothing."""
    ran = run(health.command, timeout_s=left_s, env=means.env, output=Output.LASTING)
    return "" if ran.code == 0 else printable(f"health command: {ran}", longest=800)
