# SPDX-License-Identifier: Apache-2.0
"""`updaterd release sign`: examine a built release and sign it, where the key is."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from updaterd.cli.release.parts import (
    confirming,
    files,
    handover,
    opening,
    options,
    output,
)

if TYPE_CHECKING:
    from updaterd.release.handover.file import ReleaseFile
    from updaterd.release.handover.signing import Proposal
    from updaterd.release.handover.state import State
    from updaterd.release.workspace import Workspace

MORE = """\
Everything in the file is hashed again and compared with what is published; then it
says what would be signed, and asks. It needs the release key, and a root that is
trusted here (public/metadata of the workspace), but no network.

Where other releases were published since the file was built, it needs to see them:
--from, with a copy of public/metadata as it is now. Nothing is built again.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    sign = options.command(
        commands, "sign", run, "examine a built release, and sign it", MORE
    )
    sign.add_argument(
        "file", type=Path, metavar="FILE", help="that `release build` wrote"
    )
    sign.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="signed release file to write (default: the same file)",
    )
    sign.add_argument(
        "--seq",
        type=options.SEQ,
        metavar="N",
        help="its number in the order of releases (default: the next)",
    )
    sign.add_argument("--yes", action="store_true", help="do not ask")
    handover.add_from(sign, "as it is now (default: as it was for the builder)")
    options.add_workspace(sign)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    import tempfile

    from updaterd.release.handover import memory, signing
    from updaterd.release.handover.file import ReleaseFile

    workspace = opening.workspace(arguments)
    now = opening.clock()
    out = arguments.file.resolve()
    if arguments.output is not None:
        out = files.writable(arguments.output)
    with (
        ReleaseFile.open(arguments.file) as release,
        tempfile.TemporaryDirectory() as scratch,
    ):
        state = _newest(arguments, workspace, release)
        proposal = signing.propose(
            release,
            state,
            Path(scratch),
            workspace.keyring,
            now=now,
            seq=arguments.seq,
        )
        _show(arguments, release, proposal)
        if not arguments.yes and not confirming.is_confirmed():
            return 1
        roles = signing.sign(
            proposal,
            workspace.keyring,
            signing.earlier_roles(release),
            workspace.folder / memory.SIGNED,
        )
        release.write(out, signing.contents(release, proposal, roles))
    lacking = signing.missing(proposal, roles)
    for role, metadata in roles.items():
        signed = metadata.signed
        print(f"signed {role} {signed.version}, until {signed.expires:%Y-%m-%d}")
    for role, count in lacking.items():
        print(f"{role} still needs {count} more: sign {out.name} with the other key")
    print(f"wrote {out}: `updaterd release publish {out.name}` where the online key is")
    output.answer(
        arguments,
        file=str(out),
        signed={name: role.signed.version for name, role in roles.items()},
        missing_signatures=lacking,
    )
    return 0


def _newest(
    arguments: argparse.Namespace, workspace: "Workspace", release: "ReleaseFile"
) -> "State":
    """Return the newest of what is known to be published."""
    from updaterd.core import layout
    from updaterd.release.handover import signing, state

    trusted = state.newest_root(workspace.metadata)
    known = [signing.state_of(release, trusted)]
    now = opening.clock()
    if arguments.source is not None:
        with handover.source(arguments, workspace.public) as (source, _):
            known.append(state.look(source, trusted, release.product, now=now))
    elif (workspace.metadata / layout.TIMESTAMP).exists():
        folder = state.Folder(workspace.public)
        known.append(state.look(folder, trusted, release.product, now=now, is_old=True))
    return max(known, key=lambda item: item.place)


def _show(
    arguments: argparse.Namespace, release: "ReleaseFile", proposal: "Proposal"
) -> None:
    """Say what would be signed, to people and to programs."""
    from updaterd.release.handover import summary

    lines, platforms = [], {}
    for manifest in proposal.manifests:
        facts: dict[str, Any] = summary.of(
            manifest,
            proposal.bases.get(manifest.platform),
            is_first=manifest.platform not in proposal.bases,
        )
        lines += summary.lines(manifest, facts)
        platforms[manifest.platform] = facts
    known = (
        f"{role} {metadata.signed.version}"
        for role, metadata in proposal.state.roles.items()
    )
    lines.append(f"to be published after {', '.join(known)}, and nothing newer")
    text = "\n".join(lines)
    print(text)
    if arguments.json and not arguments.yes:
        print(text, file=sys.stderr)
    output.answer(
        arguments,
        product=release.product,
        version=release.version,
        seq=proposal.manifests[0].seq,
        platforms=platforms,
        after={
            role: metadata.signed.version
            for role, metadata in proposal.state.roles.items()
        },
    )
