# SPDX-License-Identifier: Apache-2.0
"""Log at each start and reload which settings would not work on this machine.

`updaterd config check` tells a person; the same process tells the journal, so that it
stands there before the first update fails. A process of its own, gone when it has
spoken: it loads what the daemon lives without (docs/decisions/0021).
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from updaterd import log
from updaterd.daemon.workers import environment

_PATIENCE_S = 60.0


async def tell(
    arguments: Sequence[str], on_cage: Callable[[dict[str, Any]], None]
) -> None:
    """Log each finding; never raises but to be cancelled.

    Args:
        arguments: machine options, as the workers get them.
        on_cage: called with the layers that confine the bundle opener.
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
        report = json.loads(out)
        findings, cage = report["findings"], report.get("cage")
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if cage is not None:
        _tell_cage(cage)
        on_cage(cage)
    for finding in findings:
        log.get().warning(
            "config_finding",
            code=finding["code"],
            cause=finding["what"],
            remedy=finding["do"],
        )


def _tell_cage(cage: dict[str, Any]) -> None:
    if not cage["missing"]:
        log.get().info("cage", layers=cage["layers"])
        return
    log.get().warning(
        "cage",
        layers=cage["layers"],
        code="cage_open",
        cause="; ".join(cage["missing"]),
        remedy="a kernel of 5.13 or newer with Landlock enabled (lsm=), on x86-64 or "
        "aarch64",
    )
