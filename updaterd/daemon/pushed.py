# SPDX-License-Identifier: Apache-2.0
"""Signed metadata that came with an event, handed to the worker as files."""

from pathlib import Path

from updaterd import durable, log
from updaterd.core import layout
from updaterd.core.events import PushedMetadata
from updaterd.daemon.troubles import trouble


def hand_over(pushed: PushedMetadata, runtime: Path) -> Path | None:
    """Write the files for a worker, unverified; return their folder.

    Returns:
        None where they cannot be written: the worker fetches them instead.

    Power cut: the folder is in /run and gone; the worker fetches instead.
    """
    folder = runtime / "pushed"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, data in (
            (layout.TIMESTAMP, pushed.timestamp),
            (layout.SNAPSHOT, pushed.snapshot),
        ):
            if data is None:
                (folder / name).unlink(missing_ok=True)
            else:
                durable.publish_file(folder / name, data, mode=0o600)
    except OSError as error:
        log.get().warning(
            "pushed_unwritable",
            path=str(folder),
            **trouble("not_writable", str(error)),
        )
        return None
    return folder
