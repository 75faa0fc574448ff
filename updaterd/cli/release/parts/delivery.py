# SPDX-License-Identifier: Apache-2.0
"""Bringing destinations to the state of the repository, after it was published."""

import argparse
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from updaterd.cli.release.parts import opening, output
from updaterd.cli.release.parts.destinations import AGAIN, destinations

if TYPE_CHECKING:
    from updaterd.errors import UpdaterError
    from updaterd.release.destinations.contract import Destination
    from updaterd.release.upkeep.delivery import Delivered
    from updaterd.release.workspace import Workspace


def deliver(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    *,
    thorough: bool = False,
    recovered: bool = False,
) -> None:
    """Bring every destination to the repository's state.

    Args:
        arguments: which.
        workspace: which, where the arguments do not say.
        thorough: read what is there, too.
        recovered: the repository goes on past another history than its own.

    Raises:
        UpdaterError: one could not be; the others were, and the error says so.
        _undelivered: that error.
    """
    from updaterd.errors import UpdaterError

    done: list[Delivered] = []
    failed: list[tuple[str, UpdaterError]] = []
    for destination in destinations(arguments, workspace):
        try:
            delivered = _deliver(
                arguments,
                workspace,
                destination,
                thorough=thorough,
                recovered=recovered,
            )
            done.append(delivered)
        except UpdaterError as error:
            failed.append((destination.address, error))
    output.answer(
        arguments,
        delivered=[_as_json(delivered) for delivered in done],
        undelivered=[
            {"to": address, "code": error.code, "what": error.cause}
            for address, error in failed
        ],
    )
    if failed:
        raise _undelivered(workspace, failed)


def _deliver(
    arguments: argparse.Namespace,
    workspace: "Workspace",
    destination: "Destination",
    *,
    thorough: bool,
    recovered: bool,
) -> "Delivered":
    from updaterd.release.upkeep import delivery, garbage

    with Line() as line:
        delivered = delivery.deliver(
            workspace,
            destination,
            lambda: opening.published(workspace),
            compared=not getattr(arguments, "no_compare", False),
            recovered=recovered,
            thorough=thorough,
            progress=line,
        )
    # It is there whatever the disk here says; not noted, it counts from the next time.
    with workspace.locked(), suppress(OSError):
        repository = opening.published(workspace)
        garbage.note_at(workspace, repository, destination.address, delivered.stored)
    state = "published there" if delivered.moved else "up to date there"
    print(
        f"{delivered.address}: {state}, sent {delivered.files} files "
        f"({delivered.bytes:,} bytes), {delivered.present} were there"
    )
    if delivered.guarded is False:
        print(
            f"note: {delivered.address} replaces a file although it was asked not to "
            "(conditional writes are ignored): publish to it from one place only",
            file=sys.stderr,
        )
    return delivered


def _undelivered(
    workspace: "Workspace", failed: "list[tuple[str, UpdaterError]]"
) -> "UpdaterError":
    address, first = failed[0]
    if len(failed) > 1:
        first.details = tuple(f"{name}: {error.cause}" for name, error in failed[1:])
    first.means = (
        f"it is published in {workspace.public}, and not at {address}: machines that "
        "look there have what they had, whole"
    )
    advice = f"{first.do}; then " if first.do else ""
    if AGAIN not in first.do:
        first.do = f"{advice}{AGAIN} finishes it"
    return first


def _as_json(delivered: "Delivered") -> dict[str, object]:
    return {
        "to": delivered.address,
        "moved": delivered.moved,
        "files": delivered.files,
        "bytes": delivered.bytes,
        "present": delivered.present,
        "guarded": delivered.guarded,
    }


class Line:
    """How far an upload is, in one line, on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, address: str, done: int, total: int) -> None:
        """Show it."""
        if not output.can_draw():
            return
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=total, desc=address, unit="B", unit_scale=True, unit_divisor=1024
            )
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()
