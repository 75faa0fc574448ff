# SPDX-License-Identifier: Apache-2.0
"""The listing of a tree between two deltas: proposed, and proven by its tree id.

Nobody signed it, but its tree id is signed. The process that opened the delta hands
its tree script on, which is decoded here, as data from a stranger; the hashes are
those of the files that are there.
"""

from __future__ import annotations

from updaterd.artifact import script
from updaterd.artifact.worker import old_tree
from updaterd.core.frozen import record
from updaterd.core.manifest import tree_id
from updaterd.core.tree import File, Link
from updaterd.errors import RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from updaterd.artifact.destination import Destination
    from updaterd.artifact.job import Job, Made
    from updaterd.core.tree import Entry


@record
class Proposed:
    """What a script makes of an old tree.

    Attributes:
        plan: the script.
        entries: of the new tree; the hash of what operations make is not known.
    """

    plan: script.Script
    entries: tuple[Entry, ...]


def read(job: Job, result: Made) -> Proposed:
    """Return the listing that a script proposes.

    Raises:
        MalformedError: it is no script of this old tree.
    """
    plan = script.decode(result.script, job.old_files)
    items = (
        Link(item.path, item.target)
        if item.kind == script.LINK
        else File(item.path, "", item.number, item.mode)
        for item in plan.items
    )
    return Proposed(plan, (*plan.unchanged, *items))


def prove(
    job: Job, result: Made, proposed: Proposed, destination: Destination
) -> tuple[tuple[Entry, ...], set[str]]:
    """Return the whole listing, and the paths whose files were hashed for it.

    Raises:
        RejectedError: its tree id is another one than the signed one.
        OSError: the disk refused.
    """  # noqa: DOC501  one raised through bad_base
    plan = proposed.plan
    files = [
        File(
            i.path, destination.seal_unknown(i.path, i.number, i.mode), i.number, i.mode
        )
        for i in plan.items
        if i.kind == script.MADE
    ]
    listing: list[Entry] = [*plan.unchanged, *files]
    for item in plan.items:
        if item.kind == script.LINK:
            listing.append(Link(item.path, item.target))
        elif item.kind != script.MADE:
            source = (
                files[item.number]
                if item.kind == script.SAME
                else job.old_files[item.number]
            )
            assert isinstance(source, File)
            listing.append(File(item.path, source.sha256, source.length, item.mode))
    listing.sort(key=lambda entry: entry.path.encode())
    if tree_id(tuple(listing)) == job.tree:
        return tuple(listing), {file.path for file in files}
    if bad := old_tree.unsound(job, result):
        raise old_tree.damaged(bad)
    raise RejectedError(
        "the delta makes other bytes than the signed ones",
        do="publish the delta again",
        code="bad_output",
    )
