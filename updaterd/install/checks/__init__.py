# SPDX-License-Identifier: Apache-2.0
"""Kinds of health check: a module each, named as its key of `health = {...}`.

Which there are, and in which order they are asked, `core/settings.Health` declares.
Nothing else names them: a kind is its field there, its module here, its line in
docs/configuration.md and its test.
"""

from importlib import import_module
from typing import cast

from updaterd.core.settings import Health
from updaterd.install.checks.kind import Kind, Means

# All of them at once: while a release of updaterd is on trial, nothing is loaded.
KINDS = {
    name: cast("Kind", import_module(f"{__name__}.{name}")) for name in Health.kinds()
}


def fault(health: Health, means: Means, *, left_s: float) -> str:
    """Ask all that is configured, once; return the first fault, or nothing."""
    faults = (KINDS[name].fault(health, means, left_s=left_s) for name in health.checks)
    return next(filter(None, faults), "")
