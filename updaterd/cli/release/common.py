# SPDX-License-Identifier: Apache-2.0
"""What the release commands share: the workspace, the clock, progress, the feed."""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from updaterd.core.channel import ChannelPointer
    from updaterd.release.announce import Announced
    from updaterd.release.keys.files import Secrets
    from updaterd.release.repository.metadata import Repository
    from updaterd.release.workspace import Workspace

Subcommands = Any
"""What `add_subparsers` returns; argparse keeps the class to itself."""


def add(  # noqa: PLR0913 # what argparse wants to know
    commands: Subcommands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
    more: str = "",
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Declare one subcommand and return its parser.

    Args:
        commands: where it goes.
        name: what is typed.
        run: does it.
        what: one line about it.
        more: what else there is to know.
        json: it has an answer for programs.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
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


def answer(arguments: argparse.Namespace, **fields: object) -> None:
    """Put members into what `--json` prints."""
    arguments.answer = {**arguments.answer, **fields}


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
    parser.add_argument("--product", required=True, metavar="NAME")
    parser.add_argument("--version", required=True, metavar="LABEL")
    if channel:
        parser.add_argument("--channel", required=True, metavar="NAME")


def number(low: int, high: int) -> Callable[[str], int]:
    """Return what reads an argument between two bounds: a slip is wrong usage."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"a number from {low} to {high}")
        return value

    return read


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
        "--window-s",
        type=WINDOW_S,
        default=0,
        metavar="SECONDS",
        help="spread their starts over this time (default: 0, at once)",
    )
    group.add_argument(
        "--critical",
        action="store_true",
        help="urgent: machines ignore their maintenance windows",
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


def add_feed(parser: argparse.ArgumentParser) -> None:
    """Declare whom to tell."""
    group = parser.add_argument_group("announcement")
    group.add_argument(
        "--feed", metavar="URL", help="address of /v1/events (default: release.toml)"
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="bearer token (default: release.toml, then $UPDATERD_FEED_TOKEN)",
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM with the feed's own CA"
    )
    group.add_argument("--no-announce", action="store_true", help="tell no feed")
    add_compare(parser)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Declare what the repository is compared with before it is changed."""
    group = parser.add_argument_group("what is out")
    group.add_argument(
        "--served-at",
        metavar="URL",
        help="address of the repository that is out (default: release.toml, then /repo "
        "beside the feed)",
    )
    group.add_argument(
        "--no-compare",
        action="store_true",
        help="publish without a look at what is out",
    )


def clock() -> datetime:
    """Return the time: the command line is where it enters.

    Raises:
        BrokenError: the clock cannot be right.
    """
    return plausible(datetime.now(UTC))  # noqa: TID251 - the edge of the program


def plausible(now: datetime) -> datetime:
    """Return what the clock says.

    Raises:
        BrokenError: a time before this updaterd was made. What is signed by it would
            have expired when machines see it.
    """
    from updaterd.trust.clock import BUILT

    if now < BUILT:
        from updaterd.errors import BrokenError

        raise BrokenError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, which cannot be",
            means="nothing was changed: signed now, it would have expired already",
            do="set the clock (timedatectl), then run the same command again",
            code="clock_suspect",
        )
    return now


def opened(workspace: "Workspace") -> "Repository":
    """Return the repository as published now; warn when it was signed in the future.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.release import publish
    from updaterd.trust.clock import ahead

    now = clock()
    repository = publish.open_repository(workspace, now)
    if ahead(repository.timestamp, now):
        print(
            f"note: this machine's clock says {now:%Y-%m-%d %H:%M} UTC, and the "
            "repository was signed later than that. If the clock is wrong, set it: "
            "machines may take what it signs for expired",
            file=sys.stderr,
        )
    return repository


def current(arguments: argparse.Namespace, workspace: "Workspace") -> "Repository":
    """Return the repository, to be changed: not from behind what is out.

    Raises:
        BrokenError: there is none, or what is out is newer.
        RejectedError: what is out is another repository.
        TransientError: what is out cannot be asked for, where an address was given.
        behind: what is out is newer.
    """
    repository = opened(workspace)
    found = served_at(arguments, workspace)
    if found is None or arguments.no_compare:
        return repository
    address, named = found
    from updaterd.errors import RejectedError, TransientError
    from updaterd.net import Fetcher
    from updaterd.release.upkeep.outside import Served, behind

    ca_file = getattr(arguments, "ca_file", None)
    with Fetcher(ca_file=ca_file, deadline_s=15.0) as fetcher:
        try:
            out = Served(fetcher, address).look(repository)
        except (TransientError, RejectedError) as error:
            if not named:
                return repository  # a feed need not serve files
            error.means = "what is out cannot be compared with what is here"
            error.do = f"see to {address}; --no-compare publishes without that"
            raise
    ahead = out.ahead_of(repository) if out is not None else ()
    if ahead:
        raise behind(address, ahead)
    return repository


def served_at(
    arguments: argparse.Namespace, workspace: "Workspace"
) -> tuple[str, bool] | None:
    """Return the address of what is out, and whether somebody named it."""
    named = arguments.served_at or workspace.settings.served_at
    if named:
        return named, True
    if getattr(arguments, "no_announce", False):
        return None
    feed = getattr(arguments, "feed", None) or workspace.settings.feed
    events = "/v1/events"
    if feed is None or not feed.endswith(events):
        return None
    return f"{feed.removesuffix(events)}/repo", False


def ask_passphrase(name: str) -> bytes:
    """Ask a person on the terminal.

    Raises:
        BrokenError: they closed it (Ctrl-D).
    """
    return _asked(f"passphrase of the key {name}", name)


def ask_pin(name: str) -> bytes:
    """Ask a person on the terminal for a token's PIN.

    Raises:
        BrokenError: they closed it (Ctrl-D).
    """
    return _asked(f"PIN of the token with the key {name}", name)


def _asked(what: str, name: str) -> bytes:
    import getpass

    try:
        return getpass.getpass(f"{what}: ").encode()
    except EOFError as error:
        from updaterd.errors import BrokenError

        raise BrokenError(
            f"what opens the key {name} was not given",
            means="nothing was signed",
            do="run the same command again",
            code="passphrase",
        ) from error


def ask_twice(name: str) -> bytes:
    """Ask a person for a new passphrase: a slip here would lose the key."""
    from updaterd.release.keys.files import SHORTEST

    while True:
        first = ask_passphrase(name)
        if len(first.decode("utf-8", "replace")) < SHORTEST:
            print(f"at least {SHORTEST} characters: once more", file=sys.stderr)
        elif first == ask_passphrase(f"{name} (again)"):
            return first
        else:
            print("they differ: once more", file=sys.stderr)


def passphrase(arguments: argparse.Namespace) -> "Secrets":
    """Return where passphrases come from."""
    from updaterd.release.keys.files import PASSPHRASE, Secrets

    there = sys.stdin.isatty()
    return Secrets(
        PASSPHRASE,
        file=arguments.passphrase_file,
        environ=os.environ,
        ask=ask_passphrase if there else None,
        ask_new=ask_twice if there else None,
        warn=lambda text: print(f"note: {text}", file=sys.stderr),
    )


def pin(arguments: argparse.Namespace) -> "Secrets":
    """Return where PINs of tokens come from: never from where passphrases do."""
    from updaterd.release.keys.files import PIN, Secrets

    there = sys.stdin.isatty()
    return Secrets(
        PIN,
        file=arguments.pin_file,
        environ=os.environ,
        ask=ask_pin if there else None,
    )


def open_workspace(arguments: argparse.Namespace) -> "Workspace":
    """Return the workspace that the arguments name.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.release.workspace import Workspace

    return Workspace(arguments.repo, passphrase(arguments), pin(arguments))


class Bar:
    """Progress: a bar on a terminal; elsewhere a line at the start and one at the end.

    Args:
        what: is being made.
    """

    def __init__(self, what: str) -> None:
        self._title = what
        self._what = ""
        self._bar: Any = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""
        # A dumb terminal cannot go back to the beginning of a line.
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._draw(what, done, total)
        elif not self._what:
            self._what = what
            print(f"building {self._title}: bundle and deltas", file=sys.stderr)
            sys.stderr.flush()

    def _draw(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what != self._what:
            self._clear()
            self._what = what
            self._bar = tqdm(
                total=total, desc=what, unit="B", unit_scale=True, unit_divisor=1024
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End the bar; say that it is done, if it is."""
        drawn = self._bar is not None
        self._clear()
        if self._what and kind is None and not drawn:
            print(f"built {self._title}", file=sys.stderr)


def _feed(arguments: argparse.Namespace, workspace: "Workspace") -> str | None:
    found: str | None = arguments.feed or workspace.settings.feed
    return found


def _token(arguments: argparse.Namespace, workspace: "Workspace") -> str:
    from updaterd.release import announce

    file = arguments.token_file
    if file is None and workspace.settings.token_file:
        file = workspace.folder / workspace.settings.token_file
    return announce.read_token(file, os.environ)


def check_feed(arguments: argparse.Namespace, workspace: "Workspace") -> None:
    """Make sure, before anything is published, that the feed could be told.

    Raises:
        BrokenError: its address is not safe, there is no token, or no CA where one
            was named.
    """
    feed = _feed(arguments, workspace)
    if feed is not None and not arguments.no_announce:
        from updaterd.net import require_secure, tls_context

        require_secure(feed)
        _token(arguments, workspace)
        if arguments.ca_file is not None:
            tls_context(arguments.ca_file)


def tell_feed(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    repository: "Repository",
    pointer: "ChannelPointer | None",
    again: str = "the same command again",
) -> None:
    """Announce what was published.

    Args:
        arguments: whom to tell.
        workspace: whom to tell, where the arguments do not say.
        repository: what was published.
        pointer: the channel that changed; None: metadata alone.
        again: what tells the feed later.

    Raises:
        UpdaterError: the feed could not be told; the publication stands, and the
            error says so.
    """
    feed = _feed(arguments, workspace)
    if arguments.no_announce:
        return
    if feed is None:
        print("not announced: no feed is configured (--feed); machines will poll")
        return
    from updaterd.errors import TransientError, UpdaterError
    from updaterd.release.announce import OlderError

    try:
        told = _tell(arguments, workspace, feed, repository, pointer)
        print(told)
        before = arguments.answer.get("announced", [])
        answer(arguments, announced=[*before, *announced_as(told)])
    except UpdaterError as error:
        error.means = (
            "it is published, and the feed was not told: machines find it when they "
            "look by themselves"
        )
        if isinstance(error, OlderError):
            error.means = (
                "it is published, and machines that heard of what the feed knows will "
                "take nothing of it: was this repository restored from a backup?"
            )
            raise
        if isinstance(error, TransientError):
            error.do = "see to the feed and the way to it"
        error.do = f"{error.do}; then run {again}, which tells the feed"
        raise


def _tell(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    feed: str,
    repository: "Repository",
    pointer: "ChannelPointer | None",
) -> "Announced | str":
    from updaterd.net import Fetcher, require_secure
    from updaterd.release import announce

    require_secure(feed)
    token = _token(arguments, workspace)
    with Fetcher(ca_file=arguments.ca_file) as fetcher:
        try:
            body = announce.body_of(pointer, repository.pushed())
            told = announce.announce(fetcher, feed, token, body)
        except announce.OlderError as error:
            if not repository.is_overtaken():
                error.do = "`updaterd release recover` goes on past what is out"
                raise
            # Another publisher was faster: its metadata covers ours too.
            if pointer is None:
                return f"{feed} knows newer metadata already"
            body = announce.body_of(pointer, None)
            told = announce.announce(fetcher, feed, token, body)
    return told


def announced_as(told: "Announced | str") -> list[dict[str, object]]:
    """Return what the feed answered, for programs; nothing, where nothing was new."""
    if isinstance(told, str):
        return []
    return [{"id": told.id, "feed": told.url, "streams": told.streams}]
