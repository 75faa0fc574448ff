"""The daemon as a process: signals, reload, and what a defect must not end."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from updaterd import log
from updaterd.core.settings import Settings
from updaterd.daemon.clocks import Clocks
from updaterd.daemon.supervisor import Supervisor
from updaterd.daemon.workers import Workers, options
from updaterd.errors import BrokenError
from updaterd.notify import Notifier
from updaterd.store.rebuild import open_or_rebuild


def serve(
    load: Callable[[], Settings],
    *,
    now: Callable[[], float],
    draw: Callable[[], float],
) -> int:
    """Run the daemon until SIGTERM or SIGINT; SIGHUP loads the settings anew.

    Args:
        load: reads the configuration.
        now: Unix seconds.
        draw: uniform in [0, 1).

    Raises:
        BrokenError: the configuration or the state database cannot be used.
    """
    clocks = Clocks(now=now, draw=draw)
    settings: Settings | None = load()
    while settings is not None:
        settings = asyncio.run(_until_told(settings, load, clocks))
    return 0


async def _until_told(
    settings: Settings, load: Callable[[], Settings], clocks: Clocks
) -> Settings | None:
    """Run one supervisor; return the settings for the next, None to end."""
    directories = settings.directories
    connection, told = open_or_rebuild(
        Path(directories.state) / "state.db", now=clocks.now()
    )
    if told:
        log.get().error("state_set_aside", reason=told)
    arguments = options(
        {
            "config": Path(directories.config),
            "state-dir": Path(directories.state),
            "cache-dir": Path(directories.cache),
            "runtime-dir": Path(directories.runtime),
        },
        demo=settings.demo,
    )
    notifier = Notifier.from_environ()
    supervisor = Supervisor(
        settings,
        connection=connection,
        workers=Workers(arguments),
        clocks=clocks,
        notifier=notifier,
    )
    after: list[Settings] = []

    def reload() -> None:
        notifier.reloading()
        try:
            after.append(load())
        except BrokenError as error:
            # What works goes on: a typo must not stop the updates of a machine.
            log.get().error("reload_refused", code=error.code, error=str(error))
            notifier.ready()
            return
        supervisor.stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, supervisor.stop)
    loop.add_signal_handler(signal.SIGINT, supervisor.stop)
    loop.add_signal_handler(signal.SIGUSR1, supervisor.look_again)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await supervisor.run()
    finally:
        connection.close()
        notifier.close()
    return after[-1] if after else None
