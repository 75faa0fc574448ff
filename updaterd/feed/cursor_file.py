# SPDX-License-Identifier: Apache-2.0
"""Where `updaterd events` was: one small file that survives SIGKILL and rot.

The daemon does not use it: its cursor shares a transaction with the inbox.
"""

from pathlib import Path

from updaterd import durable
from updaterd.core.json_fields import encode, parse_object
from updaterd.errors import BrokenError, MalformedError

SCHEMA = 1
_FILE = "events.json"
_LARGEST = 2**22
_LONGEST_ID = 2**20


class Resume:
    """The last event id, kept in a directory.

    Args:
        directory: made when it is not there.

    Raises:
        BrokenError: the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE
        self.last_event_id: str | None = None
        self.set_aside: Path | None = None
        """Where a file that made no sense was put; its place is taken anew."""
        self.why = ""
        """What was wrong with it."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in directory.glob(f".{_FILE}.*.new"):  # of a kill
                leftover.unlink(missing_ok=True)
            self._load()
        except OSError as error:
            raise self._unusable(error) from error

    def _load(self) -> None:
        if not self._path.is_file():
            if self._path.exists():
                self._put_aside("it is not a file")
            return
        with open(self._path, "rb") as file:
            raw = file.read(_LARGEST + 1)
        try:
            fields = parse_object(raw, where=str(self._path), limit=_LARGEST)
            fields.integer("schema", low=SCHEMA, high=SCHEMA)
            self.last_event_id = fields.text("last_event_id", longest=_LONGEST_ID)
        except MalformedError as error:
            self._put_aside(error.cause)

    def _put_aside(self, why: str) -> None:
        number = 1
        while (aside := self._path.with_name(f"{_FILE}.corrupt-{number}")).exists():
            number += 1
        durable.rename(self._path, aside)
        self.set_aside, self.why = aside, why

    def save(self, last_event_id: str, *, url: str, sync: bool) -> None:
        """Replace the file.

        Args:
            last_event_id: what has been printed.
            url: of which feed; for people.
            sync: whether it must survive a power cut too, not only a kill.

        Raises:
            BrokenError: the disk refused.

        Power cut: the last synced id, or a later one.
        """
        document = {"schema": SCHEMA, "url": url, "last_event_id": last_event_id}
        write = durable.write_file if sync else durable.publish_file
        try:
            write(self._path, encode(document), mode=0o600)
        except OSError as error:
            raise self._unusable(error) from error
        self.last_event_id = last_event_id

    def _unusable(self, error: OSError) -> BrokenError:
        return BrokenError(
            f"cannot keep the last event id in {self._path}: {error}",
            means="after a restart, events would come twice or be missed",
            do="free disk space, fix permissions, or name another --state directory",
            code="state_unusable",
        )
