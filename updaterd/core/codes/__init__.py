# SPDX-License-Identifier: Apache-2.0
"""Every code of an error, a reason or a decision: whose fault, meaning, remedy.

A code is written where it is raised, as a literal, and stands once in the module of its
kind. The table in docs/codes.md is made from these (docs/generate.py);
tests/unit/core/test_codes.py holds that none is missing and none unused. Who only
raises one need not load this, and a quiet daemon does not.

A row is `code: meaning | what to do`, and goes on in the indented lines after it.
"""

from enum import StrEnum
from functools import cache

from updaterd.core.codes import (
    command,
    machine,
    network,
    nobody,
    publisher,
    release,
    server,
)
from updaterd.core.dataclass import dataclass


class Kind(StrEnum):
    """Whose fault a code is: who has to act."""

    RELEASE = "release"
    MACHINE = "machine"
    NETWORK = "network"
    PUBLISHER = "publisher"
    SERVER = "server"
    COMMAND = "command"
    NOBODY = "nobody"


ABOUT = {
    Kind.RELEASE: "The release itself: it is blocked on this machine until it is "
    "announced anew or a newer one comes",
    Kind.MACHINE: "This machine: its owner acts, and no release is blocked",
    Kind.NETWORK: "What is between the machine and the servers: tried again",
    Kind.PUBLISHER: "The repository and what its keys signed: the publisher acts",
    Kind.SERVER: "The feed server: its answers and its own trouble",
    Kind.COMMAND: "The publisher's tools: nothing was published",
    Kind.NOBODY: "Nobody: a decision, or how a step went",
}

ROWS = {
    Kind.RELEASE: release.ROWS,
    Kind.MACHINE: machine.ROWS,
    Kind.NETWORK: network.ROWS,
    Kind.PUBLISHER: publisher.ROWS,
    Kind.NOBODY: nobody.ROWS,
    Kind.SERVER: server.ROWS,
    Kind.COMMAND: command.ROWS,
}


@dataclass(frozen=True, slots=True)
class Code:
    """What a code says.

    Attributes:
        kind: whose fault it is.
        meaning: what happened, for the owner of the machine.
        remedy: what to do.
    """

    kind: Kind
    meaning: str
    remedy: str


def find(code: str) -> Code | None:
    """Return what is known about a code; None for one that this version does not have.

    `http_404` and its like are one row.
    """
    known = table()
    return known.get(code) or known.get("http_NNN" if code[:5] == "http_" else "")


def blocks(code: str) -> bool:
    """Tell whether a failure keeps the release away: only the release's own does.

    One that this version does not know (it stands in an older journal) does too.
    """
    row = find(code)
    return row is None or row.kind is Kind.RELEASE


# Published incompletely, or asked for by a wrong name: nobody was deceived.
NOT_THERE = frozenset({
    "metadata_missing",
    "no_such_channel",
    "no_such_release",
    "no_such_target",
    "stale_mirror",
})
OF_TRUST = frozenset({"bad_root", "demo_repository"})  # this machine's, and no trust


def is_trust(code: str) -> bool:
    """Tell whether a code says that what was signed must not be believed."""
    row = find(code)
    signed = row is not None and row.kind is Kind.PUBLISHER
    return (signed and code not in NOT_THERE) or code in OF_TRUST


def remedy(code: str) -> str:
    """Return what to do about a code; "" for one that this version does not have."""
    row = find(code)
    return row.remedy if row else ""


@cache
def table() -> dict[str, Code]:
    """Return every code with its row, kind by kind."""
    return {
        name: Code(kind, meaning.strip(), remedy.strip())
        for kind, rows in ROWS.items()
        for name, _, row in (
            line.partition(":") for line in rows.strip().replace("\n ", " ").split("\n")
        )
        for meaning, _, remedy in (" ".join(row.split()).partition(" | "),)
    }
