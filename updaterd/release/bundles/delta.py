# SPDX-License-Identifier: Apache-2.0
"""Delta bundles: from one release's tree to another's (docs/formats.md)."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from updaterd.core.bundle_kinds import ARCHIVES, ARM, DELTA, PRIMED
from updaterd.core.manifest import Delta, Entry, File
from updaterd.release.bundles import primed
from updaterd.release.bundles.archives import expansion
from updaterd.release.bundles.making import Progress, Request, make
from updaterd.release.bundles.plan import made_from
from updaterd.release.bundles.pool import BUDGET, Pool


def build_delta(  # noqa: PLR0913
    old_root: Path,
    old_files: Sequence[Entry],
    new_root: Path,
    new_files: Sequence[Entry],
    out: Path,
    *,
    from_version: str,
    to_version: str,
    progress: Progress | None = None,
    budget: int = BUDGET,
    pool: Pool | None = None,
) -> Delta:
    """Write the delta bundle between two trees, the same bytes for the same trees.

    Args:
        old_root: tree the delta starts from.
        old_files: its listing, as `tree.scan` returns it.
        new_root: tree it makes.
        new_files: its listing.
        out: file to write; replaced. What is in the making lies beside it.
        from_version: label of the old release.
        to_version: label of the new one.
        progress: called with "delta", and how much of how much is done.
        budget: bytes of memory that matching may take, about; larger groups of
            files are split, which costs some bytes in the bundle.
        pool: cores and memory to share with other deltas; None for all cores.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    delta = _build(
        DELTA,
        old_root,
        old_files,
        new_root,
        new_files,
        out,
        from_version=from_version,
        to_version=to_version,
        progress=progress,
        budget=budget,
        pool=pool,
    )
    assert delta is not None
    return delta


def _build(  # noqa: PLR0913, PLR0917 - as `build_delta`
    kind: str,
    old_root: Path,
    old_files: Sequence[Entry],
    new_root: Path,
    new_files: Sequence[Entry],
    out: Path,
    *,
    from_version: str,
    to_version: str,
    progress: Progress | None = None,
    budget: int = BUDGET,
    pool: Pool | None = None,
) -> Delta | None:
    """Write a delta of a kind between two trees.

    As `build_delta`. What is no DELTA, an updaterd before 0.3.0 does not read: AArch64
    programs re-aimed (ARM), as `primed`, or archives inflated (ARCHIVES), which
    machines read whose zlib is the classic one.

    Returns:
        None where the kind is of no use: there are no such files, or no archives that
        can be made anew.

    Raises:
        BrokenError: a tree changed meanwhile, or a process was killed.
        OSError: the disk refused.

    Power cut: `out` may be incomplete; it is published only later.
    """
    request = Request(
        old_root=old_root,
        old_files=old_files,
        new_root=new_root,
        new_files=new_files,
        out=out,
        from_version=from_version,
        to_version=to_version,
        progress=progress,
        budget=budget,
        pool=pool,
    )
    plan = made_from(old_files, new_files)
    if kind == PRIMED:
        plan = primed.with_all(plan, old_files)
    sources = [e for e in (old_files[i] for i in plan.sources) if isinstance(e, File)]
    plain = expansion.plain(old_root, sources, new_root, plan.targets)
    if kind == PRIMED and not primed.suits(plain):
        return None
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="making-") as scratch:
        base = Path(scratch)
        if kind != ARCHIVES:
            return make(request, plan, plain, base, kind)
        inside = base / "inflated"
        inside.mkdir()
        sides = expansion.expand(old_root, sources, new_root, plan.targets, inside)
        return None if sides is None else make(request, plan, sides, base, kind)


build_arm = partial(_build, ARM)
build_inflated = partial(_build, ARCHIVES)
build_primed = partial(_build, PRIMED)
