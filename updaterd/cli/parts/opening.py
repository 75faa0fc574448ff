# SPDX-License-Identifier: Apache-2.0
"""What a command of the pipeline works with: database, network, services."""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from updaterd.cli.parts.options import random_draw, wall_clock
from updaterd.cli.parts.telling import Told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from updaterd.core.settings import Settings
    from updaterd.pipeline.machine import Services, Teller
    from updaterd.store.report_rows import Reporter


class Machine:
    """The open things of one run: database, network, services.

    Raises:
        BrokenError: the database, the bootstrap root or the network settings cannot
            be used.
    """

    def __init__(
        self,
        settings: "Settings",
        teller: "Teller",
        *,
        carried: Path | None = None,
    ) -> None:
        from updaterd.files import places
        from updaterd.net import Fetcher
        from updaterd.net.folder import Folder
        from updaterd.pipeline.machine import open_services
        from updaterd.store.journal import Journal
        from updaterd.store.rebuild import open_or_rebuild
        from updaterd.store.schema import open_state
        from updaterd.system import locks, presence

        path = Path(settings.directories.state) / "state.db"
        loss = ""
        # before a lock's parents are made: local users have no business in them
        places.require(path.parent, code="state_unusable")
        cache = Path(settings.directories.cache)
        places.require(cache, like=path.parent, code="cache_unusable")
        if presence.is_running(Path(settings.directories.runtime), None):
            connection = open_state(path)  # the daemon has it open
        else:
            # two workers must not both set a damaged database aside
            lock = path.parent / "locks" / "state.lock"
            with locks.hold(lock, subject="the state database", wait=True):
                connection, loss = open_or_rebuild(path, now=wall_clock())
        if loss:
            print(f"updaterd: {loss}", file=sys.stderr)
        self._connection = connection
        self._settings = settings
        network = settings.trust.network
        self._fetcher = Fetcher(
            headers=network.headers,
            headers_file=network.headers_file,
            token_file=network.token_file,
            ca_file=network.ca_file,
            proxy=network.proxy,
            origin=settings.trust.repository,
            redirect_hosts=settings.download.redirect_hosts,
            max_rate=settings.download.max_rate,
            way=Folder(settings.trust.repository, carried) if carried else None,
        )
        self.services: Services = open_services(
            settings,
            Journal(connection, _reporter(settings)),
            self._fetcher,
            clock=wall_clock,
            draw=random_draw,
            teller=teller,
            environment=os.environ,
        )

    @contextmanager
    def telling(self, product: str) -> "Iterator[Services]":
        """Tell everybody how far the downloads of a product are."""
        from dataclasses import replace

        from updaterd.clocks import steady_clock
        from updaterd.system import progress

        runtime = Path(self._settings.directories.runtime)
        published = progress.Published(runtime, product, steady_clock)
        try:
            telling = Told(self.services.teller, published)
            yield replace(self.services, teller=telling)
        finally:
            published.end()

    def report(self) -> None:
        """Send what the run has to report, where the owner wants that."""
        if self._settings.reports.send:
            from updaterd.cli.reporting import reports

            reports.after_update(self._settings, self.services.journal)

    def close(self) -> None:
        """Close them."""
        self._fetcher.close()
        self._connection.close()


def _reporter(settings: "Settings") -> "Reporter | None":
    """Return what reports of this machine say; None where it reports nothing."""
    if not settings.reports.send:
        return None
    from updaterd import __version__
    from updaterd.pipeline.machine import default_platform
    from updaterd.store.report_rows import Reporter

    return Reporter(
        platform=default_platform(),
        updater=__version__,
        tags=settings.reports.tags,
    )
