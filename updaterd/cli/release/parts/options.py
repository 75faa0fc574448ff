# SPDX-License-Identifier: Apache-2.0
"""Arguments that several release commands take."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Subcommands = Any
"""What `add_subparsers` returns; argparse keeps the class to itself."""


def command(  # noqa: PLR0913 # what argparse wants to know
    commands: Subcommands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    more: str = "",
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Declare one subcommand and return its parser.

    Args:
        commands: where it goes.
        name: what is typed.
        run: does it.
        summary: one line about it.
        more: what else there is to know.
        json: it has an answer for programs.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(release_run=run, json=False, answer={})
    if json:
        parser.add_argument(
            "--json",
            action="store_true",
            help="print one JSON object, for programs",
        )
    return parser


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """Declare where the workspace is and where passphrases come from."""
    group = parser.add_argument_group("workspace")
    group.add_argument(
        "--repo",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="directory made by `updaterd release init` (default: this one)",
    )
    add_passphrase(group)


def add_passphrase(group: Any) -> None:
    """Declare where passphrases come from."""
    group.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="first line opens the key files, mode 0600 (default: "
        "$UPDATERD_PASSPHRASE_<KEY>, $UPDATERD_PASSPHRASE, a credential of the unit, "
        "else asks)",
    )
    group.add_argument(
        "--pin-file",
        type=Path,
        metavar="FILE",
        help="first line opens tokens (hsm:), mode 0600 (default: $UPDATERD_PIN_<KEY>, "
        "$UPDATERD_PIN, a credential of the unit, else asks)",
    )


def add_release(parser: argparse.ArgumentParser, *, channel: bool = True) -> None:
    """Declare which product, version and channel it is about."""
    parser.add_argument("--product", required=True, metavar="NAME", help="the product")
    parser.add_argument(
        "--version",
        required=True,
        metavar="LABEL",
        help="the release's version, a label",
    )
    if channel:
        parser.add_argument(
            "--channel", required=True, metavar="NAME", help="the channel"
        )


def number(low: int, high: int) -> Callable[[str], int]:
    """Return what reads an argument between two bounds: a slip is wrong usage."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number from {low} to {high}"
            )
        return value

    return read


def tags(text: str) -> tuple[str, ...]:
    """Read an argument that names tags, with commas between.

    Raises:
        argparse.ArgumentTypeError: a word can be none.
    """
    from updaterd.core import channel, report

    words = tuple(word for word in text.split(",") if word)
    if wrong := [word for word in words if not report.is_tag(word)]:
        raise argparse.ArgumentTypeError(
            f"{wrong[0]!r} is not a word of a-z, 0-9, '-' and '_'"
        )
    if len(words) > channel.MAX_TAGS:
        raise argparse.ArgumentTypeError(f"at most {channel.MAX_TAGS} tags")
    return tuple(sorted(set(words)))


TAGS = tags
PERMILLE, WINDOW_S = number(0, 1000), number(0, 30 * 86400)
SEQ = number(1, 2**53 - 1)


def add_rollout(parser: argparse.ArgumentParser) -> None:
    """Declare how many machines get it, and how fast."""
    group = parser.add_argument_group("rollout")
    group.add_argument(
        "--permille",
        type=PERMILLE,
        default=1000,
        metavar="N",
        help="machines of 1000 that get it (default: all)",
    )
    group.add_argument(
        "--tags",
        type=TAGS,
        default=(),
        metavar="TAG,...",
        help="machines whose owner gave them one of these tags get it, too, whatever "
        "their cohort",
    )
    group.add_argument(
        "--plan",
        metavar="NAME|FILE",
        help="roll it out step by step, and let `release watch` go on or halt it: "
        "guarded, guarded-small (hundreds of machines), one of release.toml, a file, "
        "or none (default: `plan` of release.toml, else none)",
    )
    group.add_argument(
        "--window-s",
        type=WINDOW_S,
        default=0,
        metavar="SECONDS",
        help="spread the starts of machines over this time (default: 0, at once)",
    )
    group.add_argument(
        "--critical",
        action="store_true",
        help="machines ignore their maintenance windows for this release; where it is "
        "made (push), it gets no pace",
    )


def add_without(parser: argparse.ArgumentParser) -> None:
    """Declare whose machines may be left with what they have."""
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="PLATFORM",
        help="publish although it lacks this platform of the channel: those machines "
        "keep what they have; may be repeated",
    )


def add_feed(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    """Declare whom to tell; `to`: the parser has no `--to` of another meaning."""
    group = parser.add_argument_group("announcement")
    group.add_argument(
        "--feed", metavar="URL", help="address of /v1/events (default: release.toml)"
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="bearer token (default: release.toml, $UPDATERD_FEED_TOKEN, a credential "
        "of the unit, else the identity token of a CI's job)",
    )
    group.add_argument(
        "--oidc",
        nargs="?",
        const="",
        metavar="AUDIENCE",
        help="use the identity token of this CI job and no stored one; for whom it is "
        "(default: $UPDATERD_OIDC_AUDIENCE, else updaterd)",
    )
    group.add_argument(
        "--oidc-ca-file",
        type=Path,
        metavar="FILE",
        help="PEM with the CI's own CA, where its tokens are asked for",
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM with the feed's own CA"
    )
    group.add_argument(
        "--no-announce",
        action="store_true",
        help="do not announce the publication to a feed",
    )
    add_compare(parser, to=to)


def add_destinations(
    parser: argparse.ArgumentParser, *, to: bool = True
) -> argparse._ArgumentGroup:
    """Declare where the repository is copied to."""
    group = parser.add_argument_group("destinations")
    group.add_argument(
        *(("--to",) if to else ()),
        "--destination",
        action="append",
        dest="destinations",
        metavar="ADDRESS",
        help="copy public/ there: a directory, s3://BUCKET/PREFIX, gs://... or "
        "az://...; may be repeated (default: release.toml)",
    )
    return group


def add_compare(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    """Declare where it is published, and what that is compared with before."""
    add_destinations(parser, to=to).add_argument(
        "--no-upload",
        action="store_true",
        help="publish in public/ alone; `updaterd release sync` brings it further",
    )
    group = parser.add_argument_group("published copy")
    group.add_argument(
        "--served-at",
        metavar="URL",
        help="address at which the published copy of the repository is served "
        "(default: release.toml, then /repo "
        "beside the feed)",
    )
    group.add_argument(
        "--no-compare",
        action="store_true",
        help="publish without comparing with the published copy",
    )
