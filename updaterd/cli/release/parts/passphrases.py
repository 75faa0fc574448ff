# SPDX-License-Identifier: Apache-2.0
"""Passphrases of keys and PINs of tokens: from files, the environment or a person."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.release.keys.files import Secrets


def ask_passphrase(name: str) -> bytes:
    """Ask a person on the terminal.

    Raises:
        BrokenError: they closed it (Ctrl-D).
    """
    return _prompted(f"passphrase of the key {name}", name)


def ask_pin(name: str) -> bytes:
    """Ask a person on the terminal for a token's PIN.

    Raises:
        BrokenError: they closed it (Ctrl-D).
    """
    return _prompted(f"PIN of the token with the key {name}", name)


def _prompted(prompt: str, name: str) -> bytes:
    import getpass

    try:
        return getpass.getpass(f"{prompt}: ").encode()
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
            print(f"too short: use at least {SHORTEST} characters", file=sys.stderr)
        elif first == ask_passphrase(f"{name} (again)"):
            return first
        else:
            print("the two passphrases differ: type both again", file=sys.stderr)


def passphrase(arguments: argparse.Namespace) -> "Secrets":
    """Return where passphrases come from."""
    from updaterd.release.keys.files import PASSPHRASE, Secrets

    has_person = sys.stdin.isatty()
    return Secrets(
        PASSPHRASE,
        file=arguments.passphrase_file,
        environ=os.environ,
        ask=ask_passphrase if has_person else None,
        ask_new=ask_twice if has_person else None,
        warn=lambda text: print(f"note: {text}", file=sys.stderr),
    )


def pin(arguments: argparse.Namespace) -> "Secrets":
    """Return where PINs of tokens come from: never from where passphrases do."""
    from updaterd.release.keys.files import PIN, Secrets

    has_person = sys.stdin.isatty()
    return Secrets(
        PIN,
        file=arguments.pin_file,
        environ=os.environ,
        ask=ask_pin if has_person else None,
    )
