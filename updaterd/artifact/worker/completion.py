# SPDX-License-Identifier: Apache-2.0
"""A tree completed by the parent, once the bundle opener has ended.

That process makes the files which need its bundle, and is not believed: everything in
its reach is hashed here, from a descriptor that was opened before it started, and gets
the mode of the listing. What needs no bundle is done here too: what stays, moved, or
is there twice is taken over from files that are hashed on their way, and links are
made. So what is in the tree afterwards is what was signed, whatever happened in the
cage.
"""

from __future__ import annotations

import os
from bisect import bisect_left

from updaterd.artifact.destination import Destination
from updaterd.artifact.folders import Folders
from updaterd.artifact.job import Report
from updaterd.artifact.worker import old_tree
from updaterd.core.tree import MAX_DEPTH, File, Link
from updaterd.errors import RejectedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from updaterd.artifact.job import Job, Made, Used
    from updaterd.core.tree import Entry

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def complete(
    job: Job, result: Made, destination: Destination, used: Used | None = None
) -> Report:
    """Make the tree of a job whole, and return what became of it.

    Args:
        job: what was asked for.
        result: what the process that opened the bundle says of it.
        destination: the tree, opened before that process started.
        used: what it took.

    Raises:
        MalformedError: what it says of the listing is no listing.
        RejectedError: the bundle makes something else than what is signed; or, in the
            middle of a path, an old file is not what it was (`bad_old_files`).
        OSError: the disk refused.

    Power cut: the tree is not whole; the next run hashes what is in it.
    """
    if job.files is not None:
        files, sealed = job.files, set[str]()
        present = _present(destination.root, files)
    else:
        from updaterd.artifact.worker import proposal  # noqa: PLC0415 - in a path only

        proposed = proposal.read(job, result)
        present = _present(destination.root, proposed.entries)
        files, sealed = proposal.prove(job, result, proposed, destination)
    completion = _Completion(job, destination, files, sealed)
    completion.run(present)
    bad = completion.judge(result)
    return Report(
        bytes_written=result.bytes_written,
        files_changed=completion.changed,
        files_shared=completion.shared,
        files_done=len(job.done),
        bad_old_files=bad,
        missing=tuple(sorted(completion.missing)),
        files=files if job.files is None else None,
        cpu_s=used.cpu_s if used else 0.0,
        peak_rss=used.peak_rss if used else 0,
    )


def _present(root: int, files: Sequence[Entry]) -> set[str]:
    """Return the paths that a directory holds, all of them a listing's.

    Raises:
        RejectedError: it holds something else.
    """
    paths = sorted(entry.path for entry in files)
    present = set()
    # Opened anew: on btrfs a directory that was opened before does not show what has
    # been made in it since.
    top = os.open(".", _OPEN, dir_fd=root)
    try:
        for path, is_folder in _walk(top, "", 0):
            name = path + "/" if is_folder else path
            place = bisect_left(paths, name)
            listed_path = paths[place] if place < len(paths) else ""
            if not (listed_path.startswith(name) if is_folder else listed_path == name):
                raise RejectedError(
                    "the bundle makes another tree than the one that is signed",
                    means="there is a file or directory in it that is not listed",
                    do="publish the release again",
                    code="wrong_tree",
                )
            if not is_folder:
                present.add(path)
    finally:
        os.close(top)
    return present


def _walk(folder: int, inside: str, depth: int) -> Iterator[tuple[str, bool]]:
    """Yield everything below an open directory, and whether it is a directory."""
    names = []
    with os.scandir(folder) as items:
        for item in items:
            is_folder = item.is_dir(follow_symlinks=False)
            yield inside + item.name, is_folder
            if is_folder:
                names.append(item.name)
    for name in names if depth < MAX_DEPTH else ():
        fd = os.open(name, _OPEN, dir_fd=folder)
        try:
            yield from _walk(fd, f"{inside}{name}/", depth + 1)
        finally:
            os.close(fd)


class _Completion:
    """What is right, what was taken over, and what is missing."""

    def __init__(
        self,
        job: Job,
        destination: Destination,
        files: Sequence[Entry],
        sealed: set[str],
    ) -> None:
        self._job = job
        self._destination = destination
        self._files = files
        self._sealed = sealed
        self._twins: list[File] = []
        self._wrong: list[str] = []
        self._bad: set[str] = set()
        self._how = job.unchanged if job.old is not None else "copy"
        self._before = {f.path: f for f in job.old_files if isinstance(f, File)}
        self._moved: dict[str, File] | None = None
        self.changed = 0
        self.shared = 0
        self.missing: set[str] = set()

    def run(self, present: Container[str]) -> None:
        """Hash what is there and give it its mode; make links; take over the rest.

        Args:
            present: paths at which something is.

        Raises:
            OSError: the disk refused.
        """
        job, destination, only = self._job, self._destination, self._job.only
        old = None if job.old is None else Folders(job.old)
        try:
            for entry in self._files:
                is_asked = only is None or entry.path in only
                if entry.path in present:
                    self._check(entry, is_asked=is_asked)
                elif not is_asked:
                    continue
                elif isinstance(entry, Link):
                    destination.symlink(entry.path, entry.target)
                elif not self._share(entry, old):
                    self._twins.append(entry)
        finally:
            if old is not None:
                old.close()
        if self._twins:
            self._share_twins()

    def _check(self, entry: Entry, *, is_asked: bool) -> None:
        """Hash a file that is there, and give it its mode; remove what is wrong.

        Raises:
            OSError: the disk refused.
        """
        destination = self._destination
        if isinstance(entry, Link):
            is_right = destination.link_target(entry.path) == entry.target
        elif entry.path in self._sealed:
            is_right = True
        else:
            linked = self._how == "hardlink"
            is_right = destination.seal(entry, shared=linked)
            if not is_right:
                destination.remove(entry.path)
        if not is_right:
            self._wrong.append(entry.path)
            self.missing.add(entry.path)
        elif isinstance(entry, File):
            self._sealed.add(entry.path)
            self.changed += is_asked and entry.path not in self._job.done

    def _share(self, file: File, folders: Folders | None) -> bool:
        """Take a file over from the old tree; tell whether that could be done.

        Raises:
            OSError: the disk refused.
        """
        if folders is None:
            return False
        same = self._before.get(file.path)
        if same is None or same.sha256 != file.sha256:
            if self._moved is None:
                self._moved = _by_content(reversed(self._before.values()))
            same = self._moved.get(file.sha256)
        if same is None:
            return False
        if not self._destination.share(folders, same, file.path, file.mode, self._how):
            self._bad.add(same.path)
            return False
        self.shared += 1
        return True

    def _share_twins(self) -> None:
        """Make the files whose content is at another path of the new tree.

        Never as hard links: two paths of one tree stay two files.

        Raises:
            OSError: the disk refused.
        """
        sources = _by_content(
            entry
            for entry in self._files
            if isinstance(entry, File) and entry.path in self._sealed
        )
        with Folders(self._destination.root) as folders:
            for file in self._twins:
                twin = sources.get(file.sha256)
                if twin is not None and self._destination.share(
                    folders, twin, file.path, file.mode, "copy"
                ):
                    self.changed += 1
                else:
                    self.missing.add(file.path)

    def judge(self, result: Made) -> tuple[str, ...]:
        """Return the old files that are to blame for what is missing.

        Raises:
            RejectedError: none is, so the bundle is; or no single file can be fetched,
                because the listing is not signed.
        """  # noqa: DOC501  one raised through bad_base
        if not self.missing:
            return ()
        job = self._job
        if job.old is not None and (self._wrong or not self._bad):
            self._bad.update(old_tree.unsound(job, result))
        if not self._bad:
            path = min(self._wrong or self.missing)
            raise RejectedError(
                f"the bundle makes other bytes than the signed ones: {path:.80}",
                do="publish the release again",
                code="bad_output",
            )
        if job.files is None:
            raise old_tree.damaged(self._bad)
        return tuple(sorted(self._bad))


def _by_content(files: Iterable[File]) -> dict[str, File]:
    """Return the last file of each content."""
    return {file.sha256: file for file in files}
