# SPDX-License-Identifier: Apache-2.0
"""The daemon's own folders: made again where they were deleted, if it can."""

from pathlib import Path

from updaterd import log
from updaterd.core.settings import Directories
from updaterd.daemon.troubles import trouble
from updaterd.files import places


class Folders:
    """The folders for bundles and for what the daemon publishes.

    Args:
        directories: where they are; those that cannot be used from the start are not
            looked after.
    """

    def __init__(self, directories: Directories) -> None:
        self._log = log.get()
        self._like = Path(directories.state)
        self._runtime = Path(directories.runtime)
        self._runtime_file = identity(self._runtime)
        modes = {directories.cache: places.PRIVATE, directories.runtime: 0o755}
        self._modes = {
            Path(folder): mode
            for folder, mode in modes.items()
            if places.is_usable(Path(folder))
        }

    def needs_new_start(self, *, connected: bool) -> bool:
        """Make the folders again; tell whether only a new start of the unit can.

        A folder that a unit gets from systemd cannot be made from within it.

        Args:
            connected: a service manager listens, who starts the daemon again.

        Power cut: a folder is there or not; the next turn makes it.
        """
        for folder, mode in self._modes.items():
            is_runtime = folder == self._runtime
            if is_runtime and identity(folder) != self._runtime_file:
                # whoever published something may have made another one meanwhile
                reason = f"{folder} was deleted, with the daemon's lock and socket"
            elif places.is_usable(folder):
                continue
            else:
                reason = self._make(folder, mode)
                if not reason:
                    continue
            del self._modes[folder]  # logged once; a new start logs it again
            remedy = "nothing: the unit starts the daemon again, with the folder"
            if not connected and is_runtime:
                remedy = "start updaterd again: `updaterd status` cannot see it"
            elif not connected:
                remedy = places.advice(folder, None)
            self._log.error(
                "folder_lost",
                path=str(folder),
                **trouble("cache_unusable", reason, remedy),
            )
            return connected
        return False

    def _make(self, folder: Path, mode: int) -> str:
        """Make a folder again; return why it cannot be, if that is so."""
        try:
            places.make(folder, mode=mode, like=self._like)
        except OSError as error:
            return f"{folder} is gone and cannot be made: {error.strerror}"
        if not places.is_usable(folder):
            return f"{folder} cannot be written any more"
        self._log.warning("folder_made_again", path=str(folder))
        return ""


def identity(path: Path) -> tuple[int, int] | None:
    """Return which file stands at a path; None for none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
