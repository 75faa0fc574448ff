# SPDX-License-Identifier: Apache-2.0
"""Give up, for good, what a parser of hostile bytes does not need.

A process calls `confine` on itself before it opens a bundle, with everything imported
and every descriptor opened that it will need. From then on, kernel permitting, it

- has no capability, is in namespaces of its own, and no one of its user may look into
  its memory (`privileges`),
- makes and writes files below its staging folder only, reads below that and what was
  named, and runs no program (`landlock`; from its ABI 4 on no TCP, from 6 on no signals
  to others),
- calls of the kernel what stands in a list, and nothing else: no new process, no chmod,
  no socket, no limit of anybody (`seccomp`).

A kernel that lacks one of these still has the others. `Confined` says which are in
force: the parent tells it in `status`, `config check` and the log. The packages for it
(`landlock`: pre-release, `pyseccomp`: needs libseccomp and no release since 2021) would
be more to vet than these pages; why they are as they are: docs/decisions/0027.
"""

from __future__ import annotations

from updaterd.artifact.worker.confine import kernel, landlock, privileges
from updaterd.artifact.worker.confine.seccomp import filter_calls
from updaterd.core.frozen import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Confined", "confine"]


@record
class Confined:
    """What the kernel granted.

    Attributes:
        landlock_abi: 0 when the kernel has no Landlock.
        seccomp: whether the system calls are filtered.
        namespaces: whether network, IPC and user ids are its own.
    """

    landlock_abi: int
    seccomp: bool
    namespaces: bool = False

    def document(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "layers": str(self),
            "landlock": self.landlock_abi,
            "seccomp": self.seccomp,
            "namespaces": self.namespaces,
            "missing": list(self.missing),
        }

    @property
    def writes_bounded(self) -> bool:
        """Whether nothing outside the staging folder can be changed."""
        return self.landlock_abi > 0

    @property
    def network_denied(self) -> bool:
        """Whether no connection can be opened."""
        return self.seccomp or self.namespaces

    @property
    def missing(self) -> tuple[str, ...]:
        """What a layer that is not in force leaves open, in words."""
        missing = []
        if not self.landlock_abi:
            missing.append(
                "no Landlock: the bundle opener could write where this user may"
            )
        elif self.landlock_abi < 3:
            missing.append(
                f"Landlock {self.landlock_abi}: the bundle opener could cut this "
                "user's files short"
            )
        if not self.seccomp:
            missing.append(
                "no seccomp filter: the bundle opener could steer this user's "
                "other processes"
            )
        return tuple(missing)

    def __str__(self) -> str:
        """Return "landlock 7, seccomp, no namespaces"."""
        abi = f"landlock {self.landlock_abi}" if self.landlock_abi else "no landlock"
        others = {"seccomp": self.seccomp, "namespaces": self.namespaces}
        return ", ".join((
            abi,
            *(name if in_force else f"no {name}" for name, in_force in others.items()),
        ))


def confine(
    write: Path | str | int,
    *,
    read: Iterable[Path | str | int] | None = None,
    seccomp: bool = True,
) -> Confined:
    """Confine this process, irrevocably. Call it before any thread is started.

    Args:
        write: the only folder below which anything may be made and written; a path, or
            a descriptor.
        read: the only files and folders that may be opened to be read (besides
            `write`); None leaves reading alone. Python reads its library when it
            imports.
        seccomp: whether to filter system calls; False for a tool that must exec.

    Raises:
        OSError: `write`, or one of the others, cannot be opened.
    """
    namespaces = privileges.separate()
    kernel.prctl(kernel.SET_NO_NEW_PRIVS, 1)
    abi = landlock.version()
    if abi > 0:
        landlock.restrict(abi, write, None if read is None else tuple(read))
    privileges.drop()
    return Confined(abi, seccomp and filter_calls(), namespaces)
