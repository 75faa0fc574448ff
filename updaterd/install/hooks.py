# SPDX-License-Identifier: Apache-2.0
"""The owner's own steps around an update.

    pre_stage      before anything is downloaded; failing: not now, retried later
    self_test      the release is whole on disk: does it work here? failing: refused
    pre_activate   the release is whole on disk, nothing moved yet; failing: not now
    post_activate  `current` is the new release, before units restart; failing: back
    post_rollback  `current` is the old release again, after units restarted

argv comes from the configuration only, without a shell. A hook may run again for the
same release when a run was interrupted: it must bear that.
"""

import signal
from collections.abc import Mapping

from updaterd.core.settings import Product
from updaterd.core.text import printable
from updaterd.errors import RejectedError, TransientError
from updaterd.install.commands import require_safe
from updaterd.install.process import Output, Ran, run

_NOT_NOW = "what is installed runs on; the update is tried again later"
# took too long; killed by the kernel or a person; says so itself (EX_TEMPFAIL of
# sysexits(3)); cannot be run
_NO_VERDICT = (None, -signal.SIGKILL, -signal.SIGTERM, 75, 126, 127)


class HookError(TransientError):
    """A hook said no, or took too long."""

    code = "hook_failed"


def environment(
    product: Product, *, version: str, from_version: str | None, trigger: str
) -> dict[str, str]:
    """Return what hooks and health commands find in their environment.

    `UPDATERD_RELEASE` is the directory of the release that the step is about.
    """
    return {
        "UPDATERD_PRODUCT": product.name,
        "UPDATERD_ROOT": str(product.root),
        "UPDATERD_VERSION": version,
        "UPDATERD_FROM_VERSION": from_version or "",
        "UPDATERD_RELEASE": str(product.root / "releases" / version),
        "UPDATERD_TRIGGER": trigger,
    }


def run_hook(
    name: str, product: Product, env: Mapping[str, str], *, trusted: frozenset[int]
) -> None:
    """Run the hook called `name`, if one is configured.

    Args:
        name: of the step.
        product: the application.
        env: what the hook finds in its environment.
        trusted: users who may change what runs.

    Raises:
        UnsafeCommandError: others could change it.
        HookError: it did not end with 0 in time.
    """
    ran = _run(name, product, env, trusted)
    if ran is not None and ran.code != 0:
        raise HookError(
            _failure_text(name, product, ran),
            means=_NOT_NOW if name.startswith("pre_") else "",
            do=_advice(name, product),
        )


def run_self_test(
    product: Product, env: Mapping[str, str], *, trusted: frozenset[int]
) -> None:
    """Ask a staged release whether it works here, if it can be asked.

    What says nothing about the release (no time, no such command, killed from
    outside) is no verdict: it is asked again later.

    Raises:
        RejectedError: it does not.
        HookError: there is no telling now.
        UnsafeCommandError: others than `trusted` could change what would be asked.
    """
    ran = _run("self_test", product, env, trusted)
    if ran is None or ran.code == 0:
        return
    if ran.code in _NO_VERDICT:
        raise HookError(
            _failure_text("self_test", product, ran),
            means=_NOT_NOW,
            do=_advice("self_test", product),
        )
    raise RejectedError(
        printable(
            f"{product.name} {env['UPDATERD_VERSION']} fails its self-test: {ran}",
            longest=800,
        ),
        means="it was not switched to, and is refused on this machine",
        do=f"run {product.hooks.self_test[0]} by hand, as the daemon's user and not as "
        "root; publish a release that works",
        code="self_test_failed",
    )


def _run(
    name: str, product: Product, env: Mapping[str, str], trusted: frozenset[int]
) -> Ran | None:
    argv: tuple[str, ...] = getattr(product.hooks, name)
    if not argv:
        return None
    require_safe(f"hook {name} of {product.name}", argv, trusted)
    return run(
        argv,
        timeout_s=product.hooks.timeout_s,
        env={**env, "UPDATERD_HOOK": name},
        output=Output.JOURNAL,
    )


def _failure_text(name: str, product: Product, ran: Ran) -> str:
    return printable(f"hook {name} of {product.name}: {ran}", longest=800)


def _advice(name: str, product: Product) -> str:
    program = getattr(product.hooks, name)[0]
    return f"run {program} by hand, as the daemon's user, to see what it wants"
