# SPDX-License-Identifier: Apache-2.0
"""Changes of keys: published, or waiting for signatures."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli.release.parts import (
    delivery,
    opening,
    options,
    output,
    passphrases,
)

if TYPE_CHECKING:
    from updaterd.release.keychange.change import Waiting
    from updaterd.release.keychange.edits import Change
    from updaterd.release.keys.keyring import KeyEntry
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace


ROLES = "root, targets, snapshot, timestamp, PRODUCT.releases or PRODUCT.CHANNEL"


def verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """Declare a verb of `keys` that works in a workspace."""
    parser = options.command(verbs, name, run, summary)
    if name not in {"list", "export", "cancel"}:
        options.add_compare(parser)
    options.add_workspace(parser)
    return parser


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare where a key is that is new to the workspace."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--public",
        type=Path,
        metavar="FILE",
        help="NAME.pub.json of a key made elsewhere",
    )
    group.add_argument(
        "--uri",
        metavar="URI",
        help="address of a key in a device or service: hsm:2, hv:NAME, awskms:ID, "
        "gcpkms:PATH (default: make a key file here)",
    )


def source(
    arguments: argparse.Namespace, workspace: "Workspace", name: str
) -> "KeyEntry":
    """Return the key that the arguments name, made where it does not exist."""
    from updaterd.release.keys import remote
    from updaterd.release.keys.keyring import read_public

    if arguments.public is not None:
        return workspace.keyring.add(read_public(arguments.public, name))
    if arguments.uri is not None:
        key = remote.find_key(arguments.uri, name, passphrases.pin(arguments))
        return workspace.keyring.add(key)
    return workspace.keyring.ensure(name)


def publish(
    arguments: argparse.Namespace,
    make: "Callable[[Workspace, Repository], Change]",
    done: str,
) -> int:
    """Make a change of keys, publish it or say what it waits for."""
    from updaterd.release.keychange import change as keychange

    workspace = opening.workspace(arguments)
    with workspace.locked():
        keychange.check_none_pending(workspace)
        repository = opening.current(arguments, workspace)
        edit = make(workspace, repository)
        lacking = keychange.propose(workspace, repository, edit)
    show(arguments, lacking, done)
    if not lacking:
        delivery.deliver(arguments, workspace)
    return 0


def show(arguments: argparse.Namespace, lacking: "list[Waiting]", done: str) -> None:
    """Say that a change of keys is published, or what it waits for."""
    output.answer(arguments, published=not lacking, waiting=waiting(lacking))
    if not lacking:
        print(done)
        return
    print("not published yet; it waits for signatures:")
    for entry in lacking:
        print(f"  {entry.path}: {entry.missing}")
    print("next: `updaterd release keys export DIR`, `sign` elsewhere, `import`")


def waiting(lacking: "list[Waiting]") -> list[dict[str, str]]:
    """Return what waits for signatures, for programs."""
    return [
        {"role": entry.role, "path": str(entry.path), "missing": entry.missing}
        for entry in lacking
    ]
