# SPDX-License-Identifier: Apache-2.0
"""`url`: an address answers with 2xx."""

from updaterd.core.settings import Health
from updaterd.core.text import printable
from updaterd.errors import UpdaterError
from updaterd.install.checks.kind import Means

_BODY_LIMIT = 64 * 1024


def fault(health: Health, means: Means, *, left_s: float) -> str:
    """Get it; return why it gave no good answer, or nothing."""
    url = health.url or ""
    try:
        means.getter.get(url, limit=_BODY_LIMIT, deadline_s=left_s)
    except UpdaterError as error:
        return printable(f"health address {url}: {error.cause}", longest=800)
    return ""
