# SPDX-License-Identifier: Apache-2.0
"""Give a whole tree what its listing does not say, before it becomes a release.

Bundles make files and links with folders 0755. What else a release carries
(`core/attributes.py`) is put right here, in one pass over a whole tree that stands in
staging: links to the outside, empty folders, times, and in the end the folders' modes.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from updaterd import durable
from updaterd.artifact.apply.old_files import open_at
from updaterd.artifact.apply.output import CREATE
from updaterd.artifact.destination import HashedOutput
from updaterd.artifact.folders import Folders
from updaterd.core import special
from updaterd.core.attributes import Attributes, not_allowed
from updaterd.core.manifest import Entry, Manifest
from updaterd.core.settings import Product
from updaterd.core.special import Special
from updaterd.errors import BrokenError

_PIECE = 1 << 20


def check_allowed(product: Product, manifest: Manifest) -> None:
    """Check that the owner allows what goes beyond a release's own files.

    Raises:
        BrokenError: a link leads elsewhere, or a file asks for a right too many.
    """
    for item in manifest.attributes.special:
        for kind in special.rights_of(item.mode):
            if kind not in product.special_modes:
                raise BrokenError(
                    f"{product.name} {manifest.version}: {item.path!r:.200} asks to be "
                    f"{kind} (mode {item.mode:o})",
                    means="the configuration does not allow that: nothing was "
                    "installed",
                    do=f"if it is wanted, add {kind!r} to "
                    f"products.{product.name}.special_modes",
                    code="mode_not_allowed",
                )
    place = Path(os.path.realpath(product.root)) / "releases" / manifest.version
    refused = not_allowed(
        manifest.attributes.outside, str(place), product.outside_links
    )
    if refused is None:
        return
    link, to = refused
    raise BrokenError(
        f"{product.name} {manifest.version}: the link {link.path!r:.200} leads to "
        f"{to!r:.200}, out of the release",
        means="the configuration does not allow that: nothing was installed",
        do=f"if it is wanted, add the path to products.{product.name}.outside_links",
        code="link_not_allowed",
    )


def finish(staging: Path, manifest: Manifest) -> None:
    """Give a tree what its manifest says beside the listing.

    Args:
        staging: holds exactly what is listed; nothing runs from it.
        manifest: of the release that it becomes.

    Raises:
        BrokenError: the unit forbids a mode.
        OSError: the disk refused.

    Power cut: some of it is done; the next run does all of it again.
    """
    attributes = manifest.attributes
    with Folders(staging, make=True) as folders:
        for link in attributes.outside:
            directory, name = folders.parent(link.path)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            durable.symlink_at(link.target, name, directory)
        for folder in attributes.folders:
            folders.parent(f"{folder.path}/.")
        if attributes.times:
            _set_times(folders, manifest.files, attributes)
    with Folders(staging) as folders:
        # what is deep first: a folder that nobody may change is done with then
        for folder in sorted(
            attributes.folders, key=lambda folder: folder.path, reverse=True
        ):
            directory, _ = folders.parent(f"{folder.path}/.")
            os.fchmod(directory, folder.mode)
    _set_special(staging, attributes.special)


def _set_special(staging: Path, special_files: tuple[Special, ...]) -> None:
    """Give files and folders the rights that the owner allows.

    A file that an older release has, too, becomes one of its own: that one keeps its.

    Raises:
        BrokenError: the unit forbids it.
        OSError: the disk refused.
    """
    with Folders(staging) as folders:
        for item in sorted(special_files, key=lambda item: item.path, reverse=True):
            directory, name = folders.parent(item.path)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if _is_shared(status):
                _part(directory, name, status)
            fd = open_at(directory, name)
            try:
                os.fchmod(fd, item.mode)
            except PermissionError as error:
                raise BrokenError(
                    f"{item.path!r:.200} cannot get mode {item.mode:o}: "
                    f"{error.strerror}",
                    means="the unit has RestrictSUIDSGID=yes, or the file system is "
                    "mounted so",
                    do="a drop-in for the unit with RestrictSUIDSGID=no, or a release "
                    "without such files",
                    code="mode_refused",
                ) from error
            finally:
                os.close(fd)


def _set_times(
    folders: Folders, files: tuple[Entry, ...], attributes: Attributes
) -> None:
    """Set when each file and link was last changed.

    A file that an older release has, too (a hard link), becomes one of its own where
    the times differ: the other release keeps its time.
    """
    for entry, time in zip(files, attributes.each_time(len(files)), strict=True):
        directory, name = folders.parent(entry.path)
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if time is None or int(status.st_mtime) == time:
            continue
        if _is_shared(status):
            _part(directory, name, status)
        os.utime(name, (time, time), dir_fd=directory, follow_symlinks=False)


def stays_linked(
    status: os.stat_result, mode: int, time: int | None, *, is_special: bool
) -> bool:
    """Tell whether a hard link to an older release's file can stay one.

    Args:
        status: of that file, as it is on disk.
        mode: of the new file.
        time: of the new file, if the release says one.
        is_special: whether the new file gets rights beyond its mode.
    """
    return (
        not is_special
        and stat.S_IMODE(status.st_mode) == mode
        and (time is None or int(status.st_mtime) == time)
    )


def _is_shared(status: os.stat_result) -> bool:
    return status.st_nlink > 1 and stat.S_ISREG(status.st_mode)


def _part(directory: int, name: str, status: os.stat_result) -> None:
    """Make a hard link a file of its own, with the same bytes, mode and time."""
    fd = open_at(directory, name)
    try:
        os.unlink(name, dir_fd=directory)
        created = os.open(name, CREATE, 0o600, dir_fd=directory)
        output = HashedOutput(created, stat.S_IMODE(status.st_mode))
        try:
            at = 0
            while data := os.pread(fd, _PIECE, at):
                output.write(data)
                at += len(data)
            output.finish()
        finally:
            output.abandon()
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
    finally:
        os.close(fd)
