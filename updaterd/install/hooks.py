"""The owner's own steps around an update.

    pre_stage      before anything is downloaded; failing: not now, retried later
    pre_activate   the release is whole on disk, nothing moved yet; failing: not now
    post_activate  `current` is the new release, before units restart; failing: back
    post_rollback  `current` is the old release again, after units restarted

argv comes from the configuration only, without a shell. A hook may run again for the
same release when a run was interrupted: it must bear that.
"""

from collections.abc import Mapping

from updaterd.core.settings import Product
from updaterd.core.text import printable
from updaterd.errors import TransientError
from updaterd.install.process import run


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


def run_hook(name: str, product: Product, env: Mapping[str, str]) -> None:
    """Run the hook called `name`, if one is configured.

    Raises:
        HookError: it did not end with 0 in time.
    """
    argv: tuple[str, ...] = getattr(product.hooks, name)
    if not argv:
        return
    ran = run(
        argv, timeout_s=product.hooks.timeout_s, env={**env, "UPDATERD_HOOK": name}
    )
    if ran.code != 0:
        raise HookError(
            printable(f"hook {name} of {product.name}: {ran}", longest=300),
            do=f"run {argv[0]} by hand to see what it wants",
        )
