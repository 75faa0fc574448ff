"""At each start and reload: what of the configuration would not work on this machine.

`updaterd config check` tells a person; the same process tells the journal, so that it
stands there before the first update fails. A process of its own, gone when it has
spoken: it loads what the daemon lives without (docs/decisions/0021).
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence

from updaterd import log
from updaterd.daemon.workers import environment

_PATIENCE_S = 60.0


async def tell(arguments: Sequence[str]) -> None:
    """Log each finding; never raises but to be cancelled.

    Args:
        arguments: machine options, as the workers get them.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-m", "updaterd", "config", "check"),
            *("--offline", "--as-is", "--json"),
            *arguments,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return  # no process can be made: the workers will say so
    try:
        async with asyncio.timeout(_PATIENCE_S):
            out, _ = await process.communicate()
    except TimeoutError:
        return
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        found = json.loads(out)["findings"]
    except (ValueError, KeyError, TypeError):
        return
    for one in found:
        log.get().warning(
            "config_finding", code=one["code"], cause=one["what"], remedy=one["do"]
        )
