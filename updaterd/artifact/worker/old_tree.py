# SPDX-License-Identifier: Apache-2.0
"""The old tree that a delta starts from: is it what its listing says?"""

from __future__ import annotations

from updaterd.artifact.apply.old_files import is_sound
from updaterd.artifact.folders import Folders
from updaterd.core.tree import File
from updaterd.errors import RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from updaterd.artifact.job import Job, Made


def unsound(job: Job, result: Made) -> set[str]:
    """Return the old files that are not what their listing says, or were short."""
    if job.old is None:
        return set()
    count = len(job.old_files)
    bad = {job.old_files[place].path for place in result.short if place < count}
    with Folders(job.old) as folders:
        bad.update(
            file.path
            for file in job.old_files
            if isinstance(file, File) and not is_sound(folders, file)
        )
    return bad


def damaged(paths: set[str]) -> RejectedError:
    """Return what it means that a delta in the middle of a path found damage."""
    return RejectedError(
        f"{len(paths)} installed files are not what was installed",
        means=f"a delta cannot start from them: {min(paths)!r:.80}",
        do="fetch the full bundle",
        code="bad_old_files",
    )
