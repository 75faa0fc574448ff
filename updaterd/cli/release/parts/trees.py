# SPDX-License-Identifier: Apache-2.0
"""The directories that are to become a release, and how it is built."""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.release.parts import options, output
from updaterd.core.bundle_kinds import FIRST

if TYPE_CHECKING:
    from updaterd.release.paces import Profile
    from updaterd.release.publish import Order
    from updaterd.release.workspace import Workspace


def add_trees(parser: argparse.ArgumentParser) -> None:
    """Declare the directories of a release."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="TREE",
        help="directory that holds the application, for --platform",
    )
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        type=_tree,
        metavar="PLATFORM=DIR",
        help="directory that holds it for this platform; may be repeated",
    )


def add_build(parser: argparse.ArgumentParser, *, placed: bool = True) -> None:
    """Declare how a release is built.

    Args:
        parser: of the command.
        placed: the command gives it its place in the order.
    """
    group = parser.add_argument_group("release")
    group.add_argument(
        "--platform", metavar="NAME", help="of TREE (default: release.toml)"
    )
    if placed:
        group.add_argument(
            "--seq",
            type=options.SEQ,
            metavar="N",
            help="its number in the order of releases (default: the next)",
        )
    group.add_argument(
        "--deltas",
        type=options.number(0, 100),
        metavar="N",
        help="make deltas from the last N releases (default: release.toml, 5)",
    )
    group.add_argument(
        "--memory",
        type=_memory,
        metavar="SIZE",
        help="memory that making bundles may take, about (default: 768MiB). A file is "
        "matched whole with its old self where this is more than six times as much; "
        "a larger one is matched in pieces, and its delta is larger",
    )
    group.add_argument(
        "--for",
        dest="purpose",
        choices=("bytes", "balanced", "cpu"),
        default="balanced",
        help="what counts when a bundle's streams are packed: bytes alone, or a "
        "millisecond of a machine's CPU as much as 500 bytes (balanced, the default) "
        "or 8000 (cpu)",
    )
    group.add_argument(
        "--bsdiff",
        action="append",
        default=[],
        type=_patch,
        metavar="VERSION=PATCH",
        help="offer this patch, made by `bsdiff` from the release VERSION, as well",
    )
    group.add_argument(
        "--drop",
        type=_kinds,
        default=frozenset(),
        metavar="KIND,...",
        help="leave out what the tree has and a release cannot carry: setuid, "
        "setgid, sticky, capabilities, acl, xattr; without this option such a tree "
        "is refused",
    )
    group.add_argument(
        "--carry",
        type=_rights,
        default=frozenset(),
        metavar="KIND,...",
        help="carry setuid, setgid, sticky, or writable (by group and others) to "
        "machines whose owners allow it (products.NAME.special_modes); others refuse "
        "the release",
    )
    group.add_argument(
        "--outside-links",
        action="store_true",
        help="carry links that are absolute or lead out of the tree, to machines whose "
        "owners allow it (products.NAME.outside_links); others refuse the release",
    )
    group.add_argument(
        "--strict-names",
        action="store_true",
        help="refuse names that differ only by case; without this option there is "
        "only a note",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="fail where a delta does not make the release when it is applied, instead "
        "of going on without it",
    )
    group.add_argument(
        "--attest",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="attach this in-toto statement (as it is, or in a DSSE envelope), whose "
        "subject `release subject` printed; may be repeated",
    )
    group.add_argument(
        "--min-updater",
        default=FIRST,
        metavar="VERSION",
        help=f"oldest updaterd that can install it (default: {FIRST})",
    )
    group.add_argument(
        "--floor-seq",
        type=options.SEQ,
        default=0,
        metavar="N",
        help="machines that have installed this release never go below this seq again",
    )
    group.add_argument(
        "--notes",
        action="append",
        default=[],
        type=_notes,
        metavar="[LANGUAGE=]FILE",
        help="what the release brings, for people: Markdown, at most 16 KiB in all; "
        "once for each language (--notes notes.md --notes de=notizen.md)",
    )
    group.add_argument(
        "--pace",
        metavar="NAME|FILE",
        help="how soon which machines may install it, signed by the release key: "
        "at-once, canary (1 %% of the machines, all after a day), staged (1 %%, 10 %% "
        "after 4 hours, all after a day), one of release.toml, or a file with `steps` "
        "(default: `pace` of release.toml, else at-once)",
    )
    group.add_argument(
        "--pace-strict",
        action="store_true",
        help="an updaterd that does not know what a pace is passes the release over, "
        "instead of installing it as soon as the channel says",
    )
    group.add_argument(
        "--from-seq-min",
        type=options.SEQ,
        default=0,
        metavar="N",
        help="only to be installed over a release from this seq on: older machines "
        "install one that the channel offered before first, on their way",
    )


def _memory(text: str) -> int:
    from updaterd.core.units import format_bytes, parse_bytes
    from updaterd.errors import MalformedError
    from updaterd.release.bundles.pool import LEAST

    try:
        size = parse_bytes(text)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(f"{error.cause}: {error.do}") from None
    if size < LEAST:
        raise argparse.ArgumentTypeError(f"at least {format_bytes(LEAST)}")
    return size


def _kinds(text: str) -> frozenset[str]:
    from updaterd.release.losses import KINDS

    return _of(KINDS, text)


def _rights(text: str) -> frozenset[str]:
    from updaterd.core.special import KINDS

    return _of(KINDS, text)


def _of(known: Iterable[str], text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if not kinds <= set(known):
        raise argparse.ArgumentTypeError(f"kinds are {', '.join(known)}")
    return kinds


def _patch(text: str) -> tuple[str, Path]:
    version, equals, path = text.partition("=")
    if not (version and equals and path):
        raise argparse.ArgumentTypeError("VERSION=PATCH, as in 1.2.0=app.bsdiff")
    return version, Path(path)


def _notes(text: str) -> tuple[str, Path]:
    from updaterd.core import release_notes
    from updaterd.errors import MalformedError

    language, equals, path = text.partition("=")
    if not equals:
        return release_notes.ANY, Path(text)
    try:
        return release_notes.check_language(language), Path(path)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(error.cause) from None


def _tree(text: str) -> tuple[str, Path]:
    platform, equals, path = text.partition("=")
    if not (platform and equals and path):
        raise argparse.ArgumentTypeError("PLATFORM=DIR, as in linux-aarch64=build/arm")
    return platform, Path(path)


def trees(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> list[tuple[str, Path]]:
    """Return each platform's directory; nothing, when the command makes no sense."""
    named = list(arguments.tree)
    if arguments.folder is not None:
        platform = arguments.platform or workspace.settings.platform
        named.insert(0, (platform, arguments.folder))
    wrong = ""
    if not named:
        wrong = "which directory is to be released? Name TREE, or --tree PLATFORM=DIR"
    elif arguments.platform and arguments.folder is None:
        wrong = "--platform is of TREE, and none is named"
    elif len({platform for platform, _ in named}) < len(named):
        wrong = "a platform has one directory: one is named twice"
    elif arguments.pace not in {None, "at-once"} and getattr(
        arguments, "critical", False
    ):
        wrong = "--critical lifts the pace: leave --pace out, or --critical"
    elif arguments.bsdiff and len(named) > 1:
        wrong = "--bsdiff goes with one directory: its platform is not said"
    if wrong:
        output.usage(arguments, wrong)
        return []
    return named


def orders(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    trees: Sequence[tuple[str, Path]],
    channel: str | None = None,
) -> "list[Order]":
    """Return what is to be built of each directory."""
    from updaterd.release import release_notes
    from updaterd.release.publish import Order

    notes = release_notes.read(arguments.notes)
    pace = _pace(arguments, workspace)
    deltas, latest = arguments.deltas, _latest()
    return [
        Order(
            product=arguments.product,
            version=arguments.version,
            channel=channel,
            platform=platform,
            seq=arguments.seq,
            deltas=workspace.settings.deltas if deltas is None else deltas,
            patches=tuple(arguments.bsdiff),
            min_updater=arguments.min_updater,
            floor_seq=arguments.floor_seq,
            from_seq_min=arguments.from_seq_min,
            pace=pace,
            pace_asked=arguments.pace is not None,
            notes=notes,
            drop=arguments.drop,
            carry=arguments.carry,
            outside_links=arguments.outside_links,
            strict_names=arguments.strict_names,
            strict=arguments.strict,
            latest=latest,
            attest=tuple(arguments.attest),
            memory=arguments.memory,
            purpose=arguments.purpose,
        )
        for platform, _ in trees
    ]


def _pace(arguments: argparse.Namespace, workspace: "Workspace") -> "Profile":
    """Return how soon which machines may install what is released.

    Raises:
        BrokenError: there is no such pace.
    """
    from updaterd.release import paces

    named = arguments.pace
    if named is None and getattr(arguments, "critical", False):
        return paces.NONE
    settings = workspace.settings
    pace = paces.find(settings.pace if named is None else named, settings.paces)
    return replace(pace, strict=pace.strict or arguments.pace_strict)


def _latest() -> int | None:
    """Return SOURCE_DATE_EPOCH: builds that can be repeated say their time in it.

    Raises:
        BrokenError: it is no time.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(2**40)):
        from updaterd.errors import BrokenError

        raise BrokenError(
            f"SOURCE_DATE_EPOCH is {text!r:.40}",
            means="times of files are cut to it, and it is no number of seconds",
            do="set it to seconds since 1970, or unset it",
            code="bad_epoch",
        )
    return int(text)
