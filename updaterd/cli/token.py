# SPDX-License-Identifier: Apache-2.0
"""`updaterd token`: who may publish, operate and read."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.clocks import wall_clock

if TYPE_CHECKING:
    from updaterd.server.tokens import Tokens

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

With --oidc nothing is stored that could be stolen: the jobs of a CI that match may do
it, by the identity tokens (OpenID Connect) that they are given. A subject may end in *,
for a part without a colon; claim.NAME=TEXT asks for a further claim.

examples:
  updaterd token create --state DIR --scope publish:acme/stable --name ci > token
  updaterd token create --state DIR --scope publish:acme/stable --oidc \\
    issuer=https://token.actions.githubusercontent.com,subject=repo:acme/app:ref:refs/tags/v*
  updaterd token create --state DIR --scope publish:acme/stable --oidc \\
    issuer=https://gitlab.com,subject=project_path:acme/app:ref_type:tag:ref:v*
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
        _create(arguments, tokens)
    elif arguments.action == "revoke":
        revoked = tokens.revoke(arguments.id)
        print(f"revoked {revoked.id} {printable(revoked.name)}".rstrip())
    elif arguments.json:
        _print_json(tokens)
    else:
        _print_table(tokens)
    return 0


def _create(arguments: argparse.Namespace, tokens: "Tokens") -> None:
    from updaterd.core.identity import read_rule
    from updaterd.core.text import printable
    from updaterd.net import require_secure

    name = printable(arguments.name, longest=80)
    scopes = tuple(arguments.scope)
    if arguments.oidc is None:
        _, secret = tokens.create(scopes, name=name, now=wall_clock)
        print(secret)
        return
    rule = read_rule(arguments.oidc)
    require_secure(rule.issuer)
    print(tokens.grant(rule, scopes, name=name, now=wall_clock).id)


def _print_json(tokens: "Tokens") -> None:
    import json

    document = [
        {"id": t.id, "name": t.name, "scopes": list(t.scopes), "created": t.created}
        for t in tokens.all()
    ]
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
    print(json.dumps({"schema": 1, "tokens": document, "grants": grants}))


def _print_table(tokens: "Tokens") -> None:
    import time

    from updaterd.core.text import printable

    rows = (*tokens.all(), *tokens.grants())
    if not rows:
        print("no tokens; make one with `updaterd token create`")
        return
    print(f"{'ID':<8}  {'CREATED':<10}  {'NAME':<16}  SCOPES")
    rules = {grant.id: f"  for {grant.rule}" for grant in tokens.grants()}
    for token in rows:
        day = time.strftime("%Y-%m-%d", time.gmtime(token.created))
        print(
            f"{token.id:<8}  {day}  {printable(token.name):<16}  "
            f"{' '.join(token.scopes)}{printable(rules.get(token.id, ''))}"
        )
