# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys list`: the keys, and what they sign."""

import argparse

from updaterd.cli.release.keys import change
from updaterd.cli.release.parts import (
    opening,
    options,
    output,
)


def configure(verbs: options.Subcommands) -> None:
    """Declare the arguments."""
    change.verb(verbs, "list", run, "list the keys and what they sign")


def run(arguments: argparse.Namespace) -> int:
    """List the keys."""
    from updaterd.release.keychange import change as keychange

    workspace = opening.workspace(arguments)
    repository = opening.published(workspace)
    signs = keychange.authorities(repository)
    keys = []
    for entry in workspace.keyring:
        keyid = entry.public.keyid
        roles = [role for role, (keyids, _) in signs.items() if keyid in keyids]
        place = entry.uri or "elsewhere"
        if not workspace.keyring.is_here(keyid):
            place = "elsewhere"
        keys.append({
            "name": entry.name,
            "keyid": keyid,
            "scheme": entry.public.scheme,
            "place": place,
            "signs": roles,
        })
        print(
            f"{entry.name:<20} {entry.public.scheme:<22} {keyid[:12]}  {place}\n"
            f"{'':<20} signs: {', '.join(roles) or 'nothing'}"
        )
    lacking = keychange.waiting(workspace)
    for file in lacking:
        print(f"waiting: {file.path}: {file.missing}")
    output.answer(arguments, keys=keys, waiting=change.waiting(lacking))
    return 0
