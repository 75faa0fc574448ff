# SPDX-License-Identifier: Apache-2.0
"""The daemon's own process, with which `updaterd run` replaces itself.

    python -I -m updaterd.daemon log=journal config=/etc/updaterd/updaterd.toml ...

What parsed the command line would otherwise stay in memory for as long as the daemon
lives (docs/decisions/0012). Each argument is NAME=VALUE, as `cli/run.py` gives it.
"""

import os
import sys

from updaterd.daemon import deferred

deferred.defer()  # before anything else imports what it names

from collections.abc import Callable, Sequence  # noqa: E402 - see above
from pathlib import Path  # noqa: E402 - as above
from typing import cast  # noqa: E402 - as above

from updaterd import clocks, config, exits, log  # noqa: E402 - as above
from updaterd.core.settings import Settings  # noqa: E402 - as above
from updaterd.daemon import service  # noqa: E402 - as above
from updaterd.system import locks  # noqa: E402 - as above


def main(argv: Sequence[str]) -> int:
    """Run the daemon until it is told to stop; return its exit code."""
    words = dict(word.split("=", 1) for word in argv)
    return exits.ended(lambda: _run(words.pop("log"), _loader(words)))


def _loader(words: dict[str, str]) -> Callable[[], Settings]:
    """Return what reads the configuration, at the start and at each reload."""
    demo = bool(words.pop("demo", ""))
    places = {name: Path(value) for name, value in words.items()}
    file = places.pop("config", None)
    return lambda: config.load(file, demo=demo, **places)


def _run(stream: str, load: Callable[[], Settings]) -> int:
    log.configure(stream=cast("log.Stream", stream))
    runtime = Path(load().directories.runtime)
    with locks.hold(runtime / "lock", subject="this machine (the daemon is running)"):
        # The last daemon's names a process that may be anybody's by now.
        (runtime / "status.json").unlink(missing_ok=True)
        return service.serve(load, now=clocks.wall_clock, draw=clocks.random_draw)


if __name__ == "__main__":
    os.umask(0o022)  # as every process of ours: `updaterd.__main__`
    sys.exit(main(sys.argv[1:]))
