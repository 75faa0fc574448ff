# SPDX-License-Identifier: Apache-2.0
"""`updaterd enroll`: make this machine known to a closed server, by a one-time code."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.parts.options import (
    add_machine_options,
    nudge_daemon,
    settings_from,
    wall_clock,
)

if TYPE_CHECKING:
    from updaterd.core.settings import Settings
    from updaterd.reports.enroll import Enroller, Known

_PATIENCE_S = 60.0
_LONGEST_LINE = 1024
_EXPLAINED = """\
Some servers let only machines in that they know: for their feed, their files, or their
reports. Their operator gives out codes, each for one machine. The machine makes a token
of its own, keeps it in its state directory (mode 0600), and sends only its hash. From
then on it shows the token to the server that took the code, and to no other.

Where no answer came, give the same command again: it is the same machine, and the code
is not used twice. Without a code it says what this machine is known as.

examples:
  updaterd enroll 7GK2M-0QXPA-T9DBE-4HZ1W
  updaterd enroll - < code        the same, without the code in a list of processes
  updaterd enroll                 is this machine enrolled, and for what?
  updaterd enroll --forget        delete the token; the operator should revoke it, too
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    act = parser.add_mutually_exclusive_group()
    act.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        help="from the server's operator; -: it comes on standard input",
    )
    act.add_argument("--forget", action="store_true", help="delete the token here")
    parser.add_argument("--json", action="store_true", help="one document for scripts")
    parser.epilog = _EXPLAINED
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Enrol, show or forget."""
    from updaterd.reports.enroll import Enroller

    settings = settings_from(arguments)
    file = settings.enrolment.network.token_file
    assert file is not None  # `config.load` says where
    enroller = Enroller(settings=settings.enrolment, file=Path(file), now=wall_clock)
    as_json = arguments.json
    if arguments.code is not None:
        return _enroll(arguments.code, settings, enroller, as_json=as_json)
    if arguments.forget:
        return _forget(settings, enroller, as_json=as_json)
    known = enroller.known()
    if as_json:
        _print_json(known)
    elif known is None:
        print("this machine is not enrolled anywhere")
    else:
        _print(known, settings)
    return 0


def _enroll(
    code: str, settings: "Settings", enroller: "Enroller", *, as_json: bool
) -> int:
    import sys

    from updaterd.core.enrolment import read_code
    from updaterd.core.text import printable
    from updaterd.errors import BrokenError
    from updaterd.files import places
    from updaterd.net import Fetcher

    url, network = settings.enrolment.url, settings.enrolment.network
    if not url:
        raise BrokenError(
            "it is not known where to enrol: the feed's address does not end in "
            "/v1/events",
            means="the code still counts",
            do="set `enrolment.url` in the configuration",
            code="enrolment_url",
        )
    if code == "-":
        code = sys.stdin.buffer.readline(_LONGEST_LINE).decode(errors="replace")
    code = read_code(code)
    places.require(Path(settings.directories.state), code="state_unusable")
    with Fetcher(
        headers=network.headers,
        headers_file=network.headers_file,
        ca_file=network.ca_file,
        proxy=network.proxy,
        origin=url,
    ) as fetcher:
        products = tuple(sorted(settings.products))
        known, before = enroller.enroll(code, products, fetcher, within_s=_PATIENCE_S)
    if as_json:
        _print_json(known)
    else:
        _print(known, settings)
        if before is not None and before.id not in ("", known.id):
            print(printable(f"  note: {before.id}, which it was before, counts until "
                            "revoked"))  # fmt: skip
    nudge_daemon(settings)
    return 0


def _forget(settings: "Settings", enroller: "Enroller", *, as_json: bool) -> int:
    from updaterd.core.text import printable

    known = enroller.forget()
    if as_json:
        _print_json(None)
    elif known is None or not known.id:
        print("this machine is not enrolled anywhere")
    else:
        print(printable(
            f"the token is deleted here; at {known.server} it counts until its "
            f"operator revokes {known.id}"
        ))  # fmt: skip
    nudge_daemon(settings)
    return 0


def _print_json(known: "Known | None") -> None:
    import json

    from updaterd.status import iso

    document: dict[str, object] = {"schema": 1, "enrolled": known is not None}
    if known is not None:
        document |= {
            "server": known.server,
            "id": known.id,
            "name": known.name,
            "scopes": list(known.scopes),
            "enrolled_at": iso(known.enrolled),
        }
    print(json.dumps(document))


def _print(known: "Known", settings: "Settings") -> None:
    """Say what the machine is known as, and what its configuration makes of it."""
    from updaterd.core.text import printable, public_url
    from updaterd.net.addresses import origin_of

    name = f" ({known.name})" if known.name else ""
    print(printable(f"enrolled at {known.server} as {known.id}{name}"))
    reports = settings.reports
    about = [name for name in sorted(settings.products) if known.may_report(name)]
    if known.may_read():
        print("  it may read the feed and its files")
    if any(scope.startswith("report:") for scope in known.scopes):
        print(f"  it may report about {', '.join(about) or 'none of its products'}")
        if about and not reports.send:
            print("  note: it reports nothing: `[reports]` does not say `send = true`")
    reached = [
        *([("feed.url", settings.feed.url)] if known.may_read() else []),
        *([("reports.url", reports.url)] if about and reports.send else []),
    ]
    for key, url in reached:
        if origin_of(url) != known.origin:
            print(printable(f"  note: {key} is another server, {public_url(url)}, "
                            "which does not get the token"))  # fmt: skip
