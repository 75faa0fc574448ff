# SPDX-License-Identifier: Apache-2.0
"""A destination brought to the repository's state, in an order nothing can break.

    blobs, manifests, pointers of channels -> editions of roles -> roots -> timestamp

Nothing refers to what is new before `timestamp.json` is replaced, and that only counts
where it still is what was looked at: of two publishers one comes first, and the other
looks again. Roots come right before it, because machines find them by name alone.
Dying anywhere costs the rest of one file; the next delivery sends what is missing.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path

from updaterd.core import layout
from updaterd.errors import BrokenError
from updaterd.release.destinations.contract import (
    Destination,
    Held,
    Stored,
    UnreachableError,
)
from updaterd.release.repository.metadata import Repository
from updaterd.release.upkeep.comparison import POINTER, View, compare, look
from updaterd.release.upkeep.garbage import referred
from updaterd.release.workspace import Workspace
from updaterd.trust.updater import LIMITS

_TRIES = 5
_LARGEST = 64 * LIMITS.targets_max_length

Progress = Callable[[str, int, int], None]
"""Told the destination, how many bytes of how many are there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How a destination was brought to the repository's state.

    Attributes:
        address: of the destination.
        files: sent.
        bytes: sent.
        present: files that were there already, as they should be.
        moved: it says something new now.
        guarded: nobody can overwrite what another publisher has just published; None
            where that was not seen.
        stored: what is there now.
    """

    address: str
    files: int = 0
    bytes: int = 0
    present: int = 0
    moved: bool = False
    guarded: bool | None = None
    stored: Mapping[str, Stored] = field(default_factory=dict)


def deliver(  # noqa: PLR0913 # what is brought where, and how careful
    workspace: Workspace,
    destination: Destination,
    reopen: Callable[[], Repository],
    *,
    compared: bool = True,
    recovered: bool = False,
    thorough: bool = False,
    progress: Progress | None = None,
) -> Delivered:
    """Bring a destination to the repository's state.

    Args:
        workspace: where the repository is.
        destination: what is brought there.
        reopen: returns the repository as published now.
        compared: refuse what `compare` does.
        recovered: see `compare`.
        thorough: read every edition that is there, instead of going by its length.
        progress: told what is being sent.

    Raises:
        TransientError: the destination does not answer.
        BrokenError: it refuses, or what is there does not lead here.
        _overtaken: others publish there.
        RejectedError: what is there is another repository; a file here is damaged.

    Power cut: the destination says what it said before, or all that is new; files that
    were sent meanwhile are found there by the next delivery.
    """
    total = Delivered(address=destination.address)
    for _ in range(_TRIES):
        repository = reopen()
        view = look(destination, repository)
        if compared:
            compare(workspace, repository, destination, view, recovered=recovered)
        delivery = _Delivery(workspace, destination, view, thorough, progress)
        sent = delivery.send(_in_order(referred(workspace, repository), repository))
        total = changed(
            sent, files=sent.files + total.files, bytes=sent.bytes + total.bytes
        )
        pointer = repository.pushed()[0]
        if view.held is not None and view.held.data == pointer:
            return total
        if destination.replace(POINTER, pointer, view.held):
            guarded = _guards(destination, pointer) if view.held is None else None
            return changed(total, moved=True, guarded=guarded)
    raise _overtaken(destination)


def _guards(destination: Destination, pointer: bytes) -> bool | None:
    """Tell whether a destination refuses to create what is there; None: not seen.

    Some that speak like S3 take the condition and ignore it. The bytes are the same, so
    that nothing is lost by asking; it is asked once, when the first pointer was put.
    """
    try:
        return not destination.create(POINTER, pointer)
    except UnreachableError:
        return None


def _in_order(paths: Iterable[str], repository: Repository) -> list[str]:
    """Return what is to be sent before the pointer, what leads to others last."""
    roots = [
        f"{layout.METADATA}/{layout.role_file('root', version)}"
        for version in sorted(repository.published("root"))
        if version
    ]
    snapshot = layout.role_file("snapshot", repository.snapshot.version)

    def place(path: str) -> tuple[int, str]:
        top = path.partition("/")[0]
        late = 3 if path.endswith(f"/{snapshot}") else 2
        return {layout.BLOBS: 0, layout.TARGETS: 1}.get(top, late), path

    rest = set(paths) - {POINTER} - set(roots)
    return [*sorted(rest, key=place), *roots]


class _Delivery:
    """One pass over what a destination should hold.

    Args:
        workspace: where the files are.
        destination: where they go.
        view: what is there.
        thorough: read what has the right length, too.
        progress: told what was sent.
    """

    def __init__(
        self,
        workspace: Workspace,
        destination: Destination,
        view: View,
        thorough: bool,
        progress: Progress | None,
    ) -> None:
        self._workspace = workspace
        self._destination = destination
        self._view = view
        self._thorough = thorough
        self._progress = progress
        self._stored = dict(view.stored)
        self._uploaded = 0
        self._due = 0

    def send(self, paths: list[str]) -> Delivered:
        """Send what is missing, in this order."""
        public = self._workspace.public
        sizes = {path: _size(public / path) for path in paths}
        missing = [path for path in paths if not self._is_there(path, sizes[path])]
        self._due = sum(sizes[path] for path in missing)
        files = 0
        for path in missing:
            files += self._send(path)
            self._stored[path] = Stored(size=sizes[path], changed=0.0)
        return Delivered(
            address=self._destination.address,
            files=files,
            bytes=self._uploaded,
            present=len(paths) - files,
            stored=self._stored,
        )

    def _is_there(self, path: str, size: int) -> bool:
        """Tell whether a file needs no further look: its name says its contents."""
        held = self._view.stored.get(path)
        if held is None or held.size != size:
            return False
        if not layout.is_edition(path):
            return True
        return path in self._view.known and not self._thorough

    def _send(self, path: str) -> int:
        source = self._workspace.public / path
        if not layout.is_edition(path):
            _check(source, path)
            self._destination.send(path, source, self._sent)
            return 1
        data = source.read_bytes()
        held = self._held(path)
        if held is None and self._destination.create(path, data):
            self._sent(len(data))
            return 1
        held = held or self._destination.read(path, _LARGEST)
        if held is not None and held.data == data:
            self._sent(len(data), counts=False)
            return 0
        # Where what is out refers to it and is ours, nobody else wrote it: damage.
        if path not in self._view.known or not self._destination.replace(
            path, data, held
        ):
            raise _overtaken(self._destination, path)
        self._sent(len(data))
        return 1

    def _held(self, path: str) -> Held | None:
        stored = path in self._view.stored
        return self._destination.read(path, _LARGEST) if stored else None

    def _sent(self, size: int, *, counts: bool = True) -> None:
        if counts:
            self._uploaded += size
        else:
            self._due -= size
        if self._progress is not None:
            self._progress(self._destination.address, self._uploaded, self._due)


def _size(path: Path) -> int:
    """Return how long a file of the repository is.

    Raises:
        BrokenError: it is missing.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise BrokenError(
            f"{path} is missing: the repository refers to it",
            means="nothing was sent, and the destination says what it said before",
            do="bring it from a copy (a destination, the CDN); `updaterd release verify"
            "` lists all that is missing",
            code="damaged_file",
        ) from error


def _check(source: Path, path: str) -> None:
    """Refuse to send a file that is not what its name says.

    Raises:
        BrokenError: it was damaged here.
    """
    named = layout.digest_in(path)
    with source.open("rb") as file:
        if named is None or hashlib.file_digest(file, "sha256").hexdigest() == named:
            return
    raise BrokenError(
        f"{source} is damaged: its contents are not what its name says",
        means="it was not sent, and the destination says what it said before",
        do="bring it from a copy (a destination, the CDN); `updaterd release verify "
        "--deep` lists all that is damaged",
        code="damaged_file",
    )


def _overtaken(destination: Destination, path: str = "") -> BrokenError:
    cause = f"{path} there is another than here" if path else "it changes all the time"
    return BrokenError(
        f"somebody else publishes to {destination.address}: {cause}",
        means="it was left to the other: what is there stays right",
        do="see who publishes there; then `updaterd release sync`, or `updaterd "
        "release recover` where this repository is to go on",
        code="destination_taken",
    )
