"""A delta between large trees, applied as machines will before it is offered.

Their listings alone take much of what a machine gives the process that opens bundles.
What it refuses here every machine would refuse: it is not offered, and `push` says so.
"""

from pathlib import Path

from updaterd import deletion
from updaterd.artifact import sandbox
from updaterd.artifact.job import Job
from updaterd.core.manifest import Delta, Manifest, tree_id
from updaterd.core.tree import Entry
from updaterd.errors import RejectedError

LISTED = 20_000
"""Entries of both trees from which on a delta is tried."""


def check(  # noqa: PLR0913 - a delta is between two trees
    delta: Delta,
    bundle: Path,
    before: Path,
    old: Manifest,
    files: tuple[Entry, ...],
    *,
    listed: int = LISTED,
) -> None:
    """Check that machines can apply a delta, if its trees are large.

    Args:
        delta: the edge.
        bundle: its file; what is made of it lies beside it, until this returns.
        before: the tree it starts from.
        old: the manifest of that tree.
        files: listing of the tree it makes.
        listed: entries from which on it is tried.

    Raises:
        RejectedError: they cannot.
        TransientError: no disk space.
        OSError: the disk refused.

    Power cut: what was made lies in `work/`, which the next run sweeps.
    """
    if len(old.files) + len(files) < listed:
        return
    after = bundle.with_name("after")
    after.mkdir(mode=0o700)
    try:
        report = sandbox.run(
            Job(
                kind="delta",
                codec=delta.codec,
                bundle=bundle,
                bundle_sha256=delta.sha256,
                bundle_length=delta.length,
                destination=after,
                files=files,
                tree=tree_id(files),
                old=before,
                old_files=old.files,
                unchanged="hardlink",
            )
        )
    except RejectedError as error:
        raise RejectedError(
            f"machines could not apply it: {error.what}", code=error.code
        ) from error
    finally:
        deletion.delete_tree(after)
    if report.missing:
        raise RejectedError(
            f"machines could not apply it: {report.missing[0]} is not made",
            code="bad_output",
        )
