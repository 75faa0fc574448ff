# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys`: who may sign, and with what."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli.release import common

if TYPE_CHECKING:
    from updaterd.release.keychange.change import Waiting
    from updaterd.release.keychange.edits import Change
    from updaterd.release.keys.keyring import KeyEntry
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace

MORE = """\
Changes of keys are signed by root keys. Those that are not here sign elsewhere:
  here:       updaterd release keys rotate online      (says what it waits for)
              updaterd release keys export /media/stick
  elsewhere:  updaterd release keys sign /media/stick/root.json --key root-2.pem
  here:       updaterd release keys import /media/stick/*.json

Drills for stolen and lost keys: docs/publisher.md.
"""
ROLES = "root, targets, snapshot, timestamp, PRODUCT.releases or PRODUCT.CHANNEL"


def configure(commands: common.Subcommands) -> None:
    """Declare the arguments."""
    parser = common.add(
        commands,
        "keys",
        lambda _: 2,
        "list, make, rotate, add and revoke keys",
        MORE,
        json=False,
    )
    verbs = parser.add_subparsers(dest="keys_command", metavar="VERB", required=True)
    _verb(verbs, "list", run_list, "list the keys and what they sign")
    generate = common.add(
        verbs,
        "generate",
        run_generate,
        "make a key file by itself, on any machine",
        "Writes FOLDER/NAME.pem (private, encrypted) and FOLDER/NAME.pub.json.\n",
    )
    generate.add_argument("name", metavar="NAME")
    generate.add_argument("--folder", type=Path, default=Path(), metavar="DIR")
    common.add_passphrase(generate)
    rotate = _verb(
        verbs, "rotate", run_rotate, "replace a key by a new one wherever it signs"
    )
    rotate.add_argument("name", metavar="NAME", help="as `keys list` shows it")
    _add_source(rotate)
    add = _verb(verbs, "add", run_add, "let one more key sign for a role")
    add.add_argument("role", metavar="ROLE", help=ROLES)
    add.add_argument("--name", required=True, metavar="NAME")
    _add_source(add)
    revoke = _verb(verbs, "revoke", run_revoke, "end a key's say in a role")
    revoke.add_argument("role", metavar="ROLE", help=ROLES)
    revoke.add_argument("--name", required=True, metavar="NAME")
    for each in (add, revoke):
        each.add_argument(
            "--threshold", type=int, metavar="N", help="signatures needed from now on"
        )
    renew = _verb(verbs, "renew", run_renew, "sign root and targets anew, unchanged")
    renew.add_argument("roles", nargs="+", choices=("root", "targets"), metavar="ROLE")
    product = _verb(verbs, "add-product", run_product, "delegate to a new product")
    product.add_argument("product", metavar="PRODUCT")
    product.add_argument("--channel", action="append", default=[], metavar="NAME")
    product.add_argument(
        "--critical", action="store_true", help="releases need two keys' signatures"
    )
    channel = _verb(verbs, "add-channel", run_channel, "delegate to a new channel")
    channel.add_argument("product", metavar="PRODUCT")
    channel.add_argument("channel", metavar="CHANNEL")
    export = _verb(verbs, "export", run_export, "copy out what is to be signed")
    export.add_argument("folder", type=Path, metavar="DIR")
    sign = common.add(verbs, "sign", run_sign, "sign an exported file, anywhere")
    sign.add_argument("file", type=Path, metavar="FILE")
    sign.add_argument("--key", type=Path, required=True, metavar="NAME.pem")
    sign.add_argument("--yes", action="store_true", help="do not ask")
    common.add_passphrase(sign)
    taken = _verb(verbs, "import", run_import, "take signatures back and publish")
    taken.add_argument("files", type=Path, nargs="+", metavar="FILE")
    _verb(verbs, "cancel", run_cancel, "drop the change that waits for signatures")


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], what: str
) -> argparse.ArgumentParser:
    parser = common.add(verbs, name, run, what)
    if name not in {"list", "export", "cancel"}:
        common.add_compare(parser)
    common.add_workspace(parser)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
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
        help="key in a device or service: hsm:2, hv:NAME, awskms:ID, "
        "gcpkms:PATH (default: make a key file here)",
    )


def _source(
    arguments: argparse.Namespace, workspace: "Workspace", name: str
) -> "KeyEntry":
    from updaterd.release.keys import remote
    from updaterd.release.keys.keyring import read_public

    if arguments.public is not None:
        return workspace.keyring.add(read_public(arguments.public, name))
    if arguments.uri is not None:
        found = remote.find_key(arguments.uri, name, common.pin(arguments))
        return workspace.keyring.add(found)
    return workspace.keyring.ensure(name)


def _change(
    arguments: argparse.Namespace,
    make: "Callable[[Workspace, Repository], Change]",
    done: str,
) -> int:
    """Make a change of keys, publish it or say what it waits for."""
    from updaterd.release.keychange import change as keychange

    workspace = common.open_workspace(arguments)
    with workspace.locked():
        keychange.check_none_pending(workspace)
        repository = common.current(arguments, workspace)
        change = make(workspace, repository)
        left = keychange.propose(workspace, repository, change)
    _tell(arguments, left, done)
    return 0


def _tell(arguments: argparse.Namespace, left: "list[Waiting]", done: str) -> None:
    common.answer(arguments, published=not left, waiting=_waiting(left))
    if not left:
        print(done)
        return
    print("not published yet; it waits for signatures:")
    for each in left:
        print(f"  {each.path}: {each.missing}")
    print("next: `updaterd release keys export DIR`, `sign` elsewhere, `import`")


def _waiting(left: "list[Waiting]") -> list[dict[str, str]]:
    return [
        {"role": each.role, "path": str(each.path), "missing": each.missing}
        for each in left
    ]


def run_list(arguments: argparse.Namespace) -> int:
    """List the keys."""
    from updaterd.release.keychange import change as keychange

    workspace = common.open_workspace(arguments)
    repository = common.opened(workspace)
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
    left = keychange.waiting(workspace)
    for each in left:
        print(f"waiting: {each.path}: {each.missing}")
    common.answer(arguments, keys=keys, waiting=_waiting(left))
    return 0


def run_generate(arguments: argparse.Namespace) -> int:
    """Make a key file."""
    from updaterd.release.keys.files import generate

    private, public = generate(
        arguments.folder, arguments.name, common.passphrase(arguments)
    )
    print(f"private: {private}\npublic:  {public}")
    common.answer(arguments, private=str(private), public=str(public))
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """Replace a key."""

    def make(workspace: "Workspace", repository: "Repository") -> "Change":
        from updaterd.release.keychange import change as keychange
        from updaterd.release.keychange import edits

        name = arguments.name
        old = keychange.successor(workspace, repository, name)
        workspace.keyring.retire(name)
        new = _source(arguments, workspace, name)
        return edits.replace_key(old.public, new.public)

    return _change(arguments, make, f"{arguments.name} is replaced")


def run_add(arguments: argparse.Namespace) -> int:
    """Let a key sign for a role."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        entry = _source(arguments, workspace, arguments.name)
        return edits.add_key(arguments.role, entry.public, arguments.threshold)

    return _change(arguments, make, f"{arguments.name} signs for {arguments.role}")


def run_revoke(arguments: argparse.Namespace) -> int:
    """End a key's say."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        keyid = workspace.keyring.entry(arguments.name).public.keyid
        return edits.revoke_key(arguments.role, keyid, arguments.threshold)

    done = f"{arguments.name} does not sign for {arguments.role} any more"
    return _change(arguments, make, done)


def run_renew(arguments: argparse.Namespace) -> int:
    """Sign root or targets anew."""

    def make(_workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import edits

        return edits.renew(*arguments.roles)

    return _change(arguments, make, f"renewed: {', '.join(arguments.roles)}")


def run_product(arguments: argparse.Namespace) -> int:
    """Delegate to a product."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import delegation

        channels = arguments.channel or ["stable"]
        return delegation.product_changes(
            workspace, arguments.product, channels, critical=arguments.critical
        )

    return _change(arguments, make, f"product {arguments.product} is delegated to")


def run_channel(arguments: argparse.Namespace) -> int:
    """Delegate to a channel."""

    def make(workspace: "Workspace", _: "Repository") -> "Change":
        from updaterd.release.keychange import delegation

        return delegation.channel_changes(
            workspace, arguments.product, arguments.channel
        )

    where = f"{arguments.product}/{arguments.channel}"
    return _change(arguments, make, f"channel {where} is delegated to")


def run_export(arguments: argparse.Namespace) -> int:
    """Copy out what is to be signed."""
    from updaterd.release.keychange import change as keychange

    workspace = common.open_workspace(arguments)
    paths = keychange.export(workspace, arguments.folder)
    for path in paths:
        print(path)
    common.answer(arguments, files=[str(path) for path in paths])
    return 0


def run_sign(arguments: argparse.Namespace) -> int:
    """Sign an exported file.

    Raises:
        BrokenError: nobody confirmed it, or the key has no say in it.
    """
    import sys

    from updaterd.errors import BrokenError
    from updaterd.release.keychange import offline

    print("\n".join(offline.describe(arguments.file)))
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise BrokenError(
                "nobody is there to confirm what is signed",
                do="read it, then use --yes",
                code="not_confirmed",
            )
        try:
            answer = input("sign this? [yes/no] ")
        except EOFError:  # Ctrl-D
            answer = ""
        if answer != "yes":
            print("\nnot signed", file=sys.stderr)
            return 1
    offline.sign(arguments.file, arguments.key, common.passphrase(arguments))
    print(f"signed {arguments.file} with {arguments.key.name}")
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    """Take signatures back."""
    from updaterd.release.keychange import change as keychange

    workspace = common.open_workspace(arguments)
    with workspace.locked():
        repository = common.current(arguments, workspace)
        left = keychange.take_in(workspace, repository, arguments.files)
    _tell(arguments, left, "published")
    return 0


def run_cancel(arguments: argparse.Namespace) -> int:
    """Drop the waiting change."""
    from updaterd.release.keychange import change as keychange

    workspace = common.open_workspace(arguments)
    with workspace.locked():
        keychange.cancel(workspace)
        keychange.give_back(workspace, common.opened(workspace))
    print("dropped")
    return 0
