# SPDX-License-Identifier: Apache-2.0
"""`updaterd token`: who may publish, operate, read and report."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.clocks import wall_clock

if TYPE_CHECKING:
    from updaterd.server.enrolment.codes import Code
    from updaterd.server.scopes import Holder
    from updaterd.server.tokens import Tokens

_LASTS_S = 7 * 86400
_EXPLAINED = """\
A token is shown once, when it is made; only its hash is kept. Changes hold from the
server's next request on, without a restart.

scopes:
  publish:PRODUCT/CHANNEL   announce releases; either part may be *
  report:PRODUCT            report how updates went, where `serve --reports token` asks
                            for it; or *
  fleet:read                read what machines reported
  operate                   read /metrics
  read                      subscribe and download, where `serve --private` asks for it

With --one-time no token is made but codes, each for one machine, which turns it into a
token of its own with `updaterd enroll CODE`. A code can give report:PRODUCT and read.

With --oidc nothing is stored that could be stolen: the jobs of a CI that match may do
it, by the identity tokens (OpenID Connect) that they are given. A subject may end in *,
for a part without a colon; claim.NAME=TEXT asks for a further claim.

examples:
  updaterd token create --state DIR --scope publish:acme/stable --name ci > token
  updaterd token create --state DIR --scope publish:acme/stable --oidc \\
    issuer=https://token.actions.githubusercontent.com,subject=repo:acme/app:ref:refs/tags/v*
  updaterd token create --state DIR --scope publish:acme/stable --oidc \\
    issuer=https://gitlab.com,subject=project_path:acme/app:ref_type:tag:ref:v*
  updaterd token create --state DIR --scope report:acme --scope read \\
    --one-time --count 20 --expires 7d --name berlin
  updaterd token list --state DIR
  updaterd token revoke --state DIR 5f0c2a91
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _EXPLAINED
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make a token and print it")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        metavar="SCOPE",
        help="publish:PRODUCT/CHANNEL, report:PRODUCT, fleet:read, operate or read; "
        "repeatable",
    )
    create.add_argument(
        "--oidc",
        metavar="RULE",
        help="issuer=URL,subject=TEXT[,audience=TEXT][,claim.NAME=TEXT]: no token "
        "but a grant for who shows such an identity; its id is printed",
    )
    create.add_argument(
        "--one-time",
        action="store_true",
        help="print codes, one a line, each for one machine: `updaterd enroll CODE`",
    )
    create.add_argument(
        "--count", type=int, metavar="N", help="so many codes (default: 1)"
    )
    create.add_argument(
        "--expires",
        type=_seconds,
        metavar="TIME",
        help="how long codes count, such as 36h; 30d at most (default: 7d)",
    )
    create.add_argument("--name", default="", help="to recognise it in `token list`")
    listing = actions.add_parser("list", help="list tokens, codes and machines")
    listing.add_argument("--json", action="store_true", help="for scripts")
    revoke = actions.add_parser("revoke", help="make a token or code worthless")
    revoke.add_argument("id", metavar="ID", help="from `token list`")
    for action in (create, listing, revoke):
        action.add_argument(
            "--state",
            type=Path,
            required=True,
            metavar="DIR",
            help="state directory of the server",
        )


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    from updaterd.core.text import printable
    from updaterd.server.tokens import Tokens, make_state

    state = make_state(arguments.state)
    tokens = Tokens(state)
    if arguments.action == "create":
        return _create(arguments, tokens)
    if arguments.action == "revoke":
        revoked = tokens.revoke(arguments.id)
        print(f"revoked {revoked.id} {printable(revoked.name)}".rstrip())
    elif arguments.json:
        _print_json(tokens)
    else:
        _print_table(tokens)
    return 0


def _seconds(text: str) -> int:
    """Read how long codes count.

    Raises:
        argparse.ArgumentTypeError: not a duration.
    """
    from updaterd.core.units import parse_duration
    from updaterd.errors import MalformedError

    try:
        return int(parse_duration(text))
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _create(arguments: argparse.Namespace, tokens: "Tokens") -> int:
    from updaterd.core.identity import read_rule
    from updaterd.core.text import printable
    from updaterd.net import require_secure

    terms = arguments.count, arguments.expires
    if (arguments.one_time and arguments.oidc) or (
        not arguments.one_time and terms != (None, None)
    ):
        from updaterd.cli import EXIT_USAGE

        print(
            "updaterd token create: --one-time goes without --oidc; --count and "
            "--expires go with --one-time",
            file=sys.stderr,
        )
        return EXIT_USAGE
    name = printable(arguments.name, longest=80)
    scopes = tuple(arguments.scope)
    if arguments.one_time:
        issued = tokens.enrolment.make(
            scopes,
            name=name,
            count=1 if arguments.count is None else arguments.count,
            lasts_s=_LASTS_S if arguments.expires is None else arguments.expires,
            now=int(wall_clock()),
        )
        for _, code in issued:
            print(code)
        return 0
    if arguments.oidc is None:
        _, secret = tokens.create(scopes, name=name, now=wall_clock)
        print(secret)
        return 0
    rule = read_rule(arguments.oidc)
    require_secure(rule.issuer)
    print(tokens.grant(rule, scopes, name=name, now=wall_clock).id)
    return 0


def _print_json(tokens: "Tokens") -> None:
    import json

    enrolled = tokens.enrolment.machines()
    document = [
        {"id": t.id, "name": t.name, "scopes": list(t.scopes), "created": t.created,
         "enrolled": is_enrolled}
        for held, is_enrolled in ((tokens.all(), False), (enrolled, True))
        for t in held
    ]  # fmt: skip
    codes = [
        {"id": c.id, "name": c.name, "scopes": list(c.scopes), "created": c.created,
         "expires": c.expires}
        for c in tokens.enrolment.codes()
    ]  # fmt: skip
    grants = [
        {
            "id": g.id,
            "name": g.name,
            "scopes": list(g.scopes),
            "created": g.created,
            "issuer": g.rule.issuer,
            "subject": g.rule.subject,
            "audience": g.rule.audience,
            "claims": dict(g.rule.claims),
        }
        for g in tokens.grants()
    ]
    whole = {"schema": 1, "tokens": document, "grants": grants, "codes": codes}
    print(json.dumps(whole))


def _print_table(tokens: "Tokens") -> None:
    from updaterd.core.text import printable

    machines, codes = tokens.enrolment.machines(), tokens.enrolment.codes()
    rows: tuple[Holder | Code, ...] = (
        *tokens.all(),
        *tokens.grants(),
        *machines,
        *codes,
    )
    if not rows:
        print("no tokens; make one with `updaterd token create`")
        return
    print(f"{'ID':<8}  {'CREATED':<10}  {'NAME':<16}  SCOPES")
    rules = {grant.id: f"  for {grant.rule}" for grant in tokens.grants()}
    rules |= {machine.id: "  an enrolled machine" for machine in machines}
    now = wall_clock()
    rules |= {
        code.id: f"  a code, until {_day(code.expires)}"
        if code.expires > now
        else "  a code that has expired"
        for code in codes
    }
    for token in rows:
        print(
            f"{token.id:<8}  {_day(token.created)}  {printable(token.name):<16}  "
            f"{' '.join(token.scopes)}{printable(rules.get(token.id, ''))}"
        )


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
