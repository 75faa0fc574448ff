# SPDX-License-Identifier: Apache-2.0
"""`updaterd release keys`: who may sign, and with what."""

from updaterd.cli.release.keys import (
    add,
    add_channel,
    add_product,
    cancel,
    export,
    generate,
    listing,
    renew,
    revoke,
    rotate,
    sign,
    take_in,
)
from updaterd.cli.release.parts import options

MORE = """\
Root keys sign each change of keys. If a root key is on another machine, sign there:
  here:       updaterd release keys rotate online      (prints the missing signatures)
              updaterd release keys export /media/stick
  elsewhere:  updaterd release keys sign /media/stick/root.json --key root-2.pem
  here:       updaterd release keys import /media/stick/*.json

Drills for stolen and lost keys: docs/publisher.md.
"""
_VERBS = (
    listing,
    generate,
    rotate,
    add,
    revoke,
    renew,
    add_product,
    add_channel,
    export,
    sign,
    take_in,
    cancel,
)


def configure(commands: options.Subcommands) -> None:
    """Declare the arguments."""
    parser = options.command(
        commands,
        "keys",
        lambda _: 2,
        "list, make, rotate, add and revoke keys",
        MORE,
        json=False,
    )
    verbs = parser.add_subparsers(dest="keys_command", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.configure(verbs)
