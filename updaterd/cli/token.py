# SPDX-License-Identifier: Apache-2.0
"""`updaterd token`: who may publish, operate and read."""

import argparse
from pathlib import Path

from updaterd.clocks import wall_clock

_EXPLAINED = """\
A token is shown once, when it is made; only its hash is kept. Changes hold from the
server's next request on, without a restart.

scopes:
  publish:PRODUCT/CHANNEL   announce releases; either part may be *
  operate                   read /metrics
  read                      subscribe and download, where `serve --private` asks for it

examples:
  updaterd token create --state DIR --scope publish:acme/stable --name ci > token
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
        help="publish:PRODUCT/CHANNEL, operate or read; repeatable",
    )
    create.add_argument("--name", default="", help="to recognise it in `token list`")
    listing = actions.add_parser("list", help="list the tokens")
    listing.add_argument("--json", action="store_true", help="for scripts")
    revoke = actions.add_parser("revoke", help="make a token worthless")
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
        _, secret = tokens.create(
            tuple(arguments.scope),
            name=printable(arguments.name, longest=80),
            now=wall_clock,
        )
        print(secret)
    elif arguments.action == "revoke":
        revoked = tokens.revoke(arguments.id)
        print(f"revoked {revoked.id} {printable(revoked.name)}".rstrip())
    elif arguments.json:
        _print_json(tokens)
    else:
        _print_table(tokens)
    return 0


def _print_json(tokens: object) -> None:
    import json

    from updaterd.server.tokens import Tokens

    assert isinstance(tokens, Tokens)
    document = [
        {"id": t.id, "name": t.name, "scopes": list(t.scopes), "created": t.created}
        for t in tokens.all()
    ]
    print(json.dumps({"schema": 1, "tokens": document}))


def _print_table(tokens: object) -> None:
    import time

    from updaterd.core.text import printable
    from updaterd.server.tokens import Tokens

    assert isinstance(tokens, Tokens)
    rows = tokens.all()
    if not rows:
        print("no tokens; make one with `updaterd token create`")
        return
    print(f"{'ID':<8}  {'CREATED':<10}  {'NAME':<16}  SCOPES")
    for token in rows:
        day = time.strftime("%Y-%m-%d", time.gmtime(token.created))
        print(
            f"{token.id:<8}  {day}  {printable(token.name):<16}  "
            f"{' '.join(token.scopes)}"
        )
