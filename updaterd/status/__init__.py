# SPDX-License-Identifier: Apache-2.0
"""How things stand, for `updaterd status` and `status.json`."""

from updaterd.status.document import (
    SCHEMA,
    collect,
    daemon_section,
    describe,
    encode,
    refusal,
)
from updaterd.status.problems import (
    EXIT_CODES,
    headline,
    left_behind,
    misread,
    of_block,
    unreadable,
)
from updaterd.status.sections import Document, Subscription, iso

__all__ = [
    "EXIT_CODES",
    "SCHEMA",
    "Document",
    "Subscription",
    "collect",
    "daemon_section",
    "describe",
    "encode",
    "headline",
    "iso",
    "left_behind",
    "misread",
    "of_block",
    "refusal",
    "unreadable",
]
