# SPDX-License-Identifier: Apache-2.0
"""Passes events of the hub on to metrics, the metadata watch and the log."""

from updaterd.log import get
from updaterd.server.http.publish import MetadataWatch
from updaterd.server.log.contract import LogDownError, Record
from updaterd.server.metrics import Metrics

log = get()


class Observer:
    """See `hub.Observer`.

    Args:
        metrics: counts.
        watch: remembers the newest pushed metadata.
    """

    def __init__(self, metrics: Metrics, watch: MetadataWatch) -> None:
        self.first_write = metrics.first_write
        self.delivered = metrics.delivered
        self.recalled = watch.remember
        self._metrics = metrics
        self._watch = watch
        self._up: bool | None = None

    def arrived(self, record: Record) -> None:
        """See `hub.Observer`."""
        self._metrics.arrived(record)
        self._watch.remember(record)

    def log_down(self, error: LogDownError) -> None:
        """See `hub.Observer`. Said once, not with every attempt."""
        if self._up is not False:
            self._up = False
            self._metrics.log_up(up=False)
            log.error("log_down", error=error.cause, do=error.do)

    def log_up(self) -> None:
        """See `hub.Observer`."""
        if self._up is not True:
            if self._up is False:
                log.info("log_back")
            self._up = True
            self._metrics.log_up(up=True)
