# SPDX-License-Identifier: Apache-2.0
"""`updaterd release audit`: who did what to which channel, and why."""

import argparse

from updaterd.cli.release.parts import opening, options, output

MORE = """\
One line for each act that was signed: by hand, or by `release watch` with the counts
it decided on. --verify also compares the log with what the channels' roles were signed
with, and fails if a line was changed, left out or cut off, or if a channel says what no
line tells of.
"""


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    audit = options.command(
        commands, "audit", run, "show who did what to which channel, and why", MORE
    )
    audit.add_argument("--verify", action="store_true", help="check the log")
    audit.add_argument(
        "--shared",
        action="store_true",
        help="other workspaces steer these channels, too, and keep logs of their own",
    )
    audit.add_argument("--product", metavar="NAME", help="only this product")
    audit.add_argument(
        "--limit",
        type=options.number(1, 1_000_000),
        default=20,
        metavar="N",
        help="lines (default: 20)",
    )
    options.add_workspace(audit)


def run(arguments: argparse.Namespace) -> int:
    """Show the log, or check it.

    Raises:
        BrokenError: it is not what was written.
    """
    from updaterd.core.text import printable
    from updaterd.errors import BrokenError
    from updaterd.release import publish
    from updaterd.release.repository.catalog import products
    from updaterd.release.rollouts import audit

    workspace = opening.workspace(arguments)
    if arguments.verify:
        repository = opening.published(workspace)
        catalogs = [
            publish.catalog_of(workspace, repository, name)
            for name in products(repository)
        ]
        entries = audit.verify(workspace.folder, catalogs, shared=arguments.shared)
    else:
        entries = audit.read(workspace.folder)
    lines = [
        line for line in entries.lines if arguments.product in {None, line["product"]}
    ]
    shown = lines[-arguments.limit :] if arguments.limit > 0 else []
    output.answer(
        arguments,
        lines=shown,
        count=len(entries.lines),
        faults=list(entries.faults),
        notes=list(entries.notes),
    )
    for line in shown:
        why = f": {line['why']}" if line["why"] else ""
        text = (
            f"{line['at']}  {line['who']}: {line['act']} {line['product']}/"
            f"{line['channel']} {line['version']}{why}"
        )
        print(printable(text))
    for note in entries.notes:
        print(f"note: {printable(note)}")
    if entries.faults:
        error = BrokenError(
            f"{workspace.folder / audit.FILE}: {entries.faults[0]}",
            means="the log, or a channel, was changed by other means than updaterd, or "
            "one of them was restored from a backup",
            do="compare both with a backup and with what webhooks sent; if a key may "
            "be stolen: `updaterd release keys rotate`",
            code="audit_broken",
        )
        error.details = entries.faults[1:]
        raise error
    if arguments.verify:
        print(f"{len(entries.lines)} lines: none was changed, left out or cut off")
    return 0
