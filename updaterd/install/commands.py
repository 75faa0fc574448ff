# SPDX-License-Identifier: Apache-2.0
"""Which programs a configured command runs, and whether others could change them.

The configuration names a program, and often a script for it: `/bin/sh`, `timeout`,
`python3` run what stands in their arguments. All of it must be writable by root and
the daemon's user only (`files/ownership.py`), for it runs with the daemon's rights.
"""

import os
import re
from collections.abc import Iterator, Sequence

from updaterd.core.settings import Product
from updaterd.errors import BrokenError
from updaterd.files import ownership

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RUNS_ANOTHER = re.compile(
    r"(?:ba|da|a|z|k|mk|fi|c|tc)?sh|busybox|python[\d.]*|perl[\d.]*|ruby[\d.]*|lua[\d.]*"
    r"|node|php[\d.]*|env|nice|ionice|nohup|timeout|setsid|stdbuf|chrt|flock|xargs|time"
    r"|sudo|doas|runuser|su|setpriv|chroot|unshare|nsenter|systemd-run|systemd-cat"
)
_STEPS = ("pre_stage", "self_test", "pre_activate", "post_activate", "post_rollback")


class UnsafeCommandError(BrokenError):
    """Others than root and the daemon's user could change what would run."""

    code = "unsafe_command"


def programs(argv: Sequence[str]) -> Iterator[str]:
    """Yield the programs that a command runs: itself, and those that its words name.

    What starts another program (a shell, `timeout`) is followed by the first word
    that is a path; a shell's `-c` line is the configuration's own.
    """
    if not argv:
        return
    yield program if (program := _searched(argv[0])) else argv[0]
    if _RUNS_ANOTHER.fullmatch(os.path.basename(argv[0])):
        for at, word in enumerate(argv[1:], 1):
            if word == "-c":
                return
            name = word.rpartition("=")[2] if word.startswith("-") else word
            if "/" in name or _RUNS_ANOTHER.fullmatch(name):
                yield from programs((name, *argv[at + 1 :]))
                return


def _searched(name: str) -> str:
    """Return the path of a command without one, as it would be run; or nothing."""
    if "/" in name:
        return ""
    places = (os.path.join(folder, name) for folder in PATH.split(":"))
    return next((place for place in places if os.access(place, os.X_OK)), "")


def fault(argv: Sequence[str], trusted: frozenset[int]) -> str:
    """Return who else could change what a command runs, in words; or nothing."""
    return ownership.first_fault(programs(argv), trusted)


def require_safe(purpose: str, argv: Sequence[str], trusted: frozenset[int]) -> None:
    """Check a command right before it runs.

    Args:
        purpose: the command is, for the message.
        argv: its words.
        trusted: users who may change it.

    Raises:
        UnsafeCommandError: others could change what it runs.
    """
    if exposure := fault(argv, trusted):
        raise UnsafeCommandError(
            f"{purpose}: {exposure}",
            means="whoever may write it decides what updaterd runs: it was not run",
            do="let only root, or the daemon's user, write it and its directories",
        )


def configured(product: Product) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a product's configuration has updaterd run: its name and its words."""
    for step in _STEPS:
        if argv := getattr(product.hooks, step):
            yield f"hook {step} of {product.name}", argv
    for kind, argv in product.health.commands:
        yield f"health {kind} of {product.name}", argv


def check(product: Product, trusted: frozenset[int]) -> None:
    """Check every command of a product, before anything is done about it.

    Raises:
        UnsafeCommandError: others could change what one of them runs.
    """
    for purpose, argv in configured(product):
        require_safe(purpose, argv, trusted)
