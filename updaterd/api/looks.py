# SPDX-License-Identifier: Apache-2.0
"""Looks that applications ask for: one process at a time, whoever asks.

Each look is a process of its own. Whoever asks about a product that is being looked at
gets the answer of that look: many who ask must not take the memory that the wishes of
others live in (`MemoryMax=` of the unit).
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence

from updaterd.api.wire import failed

_PATIENCE_S = 120.0
_COMMAND = (sys.executable, "-I", "-m", "updaterd", "check")

Answer = Mapping[str, object]


class Looks:
    """Has products looked at, without installing anything.

    Args:
        command: looks; a product's name and options follow.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = command
        self._under_way: dict[str, asyncio.Task[Answer]] = {}
        self._turn = asyncio.Lock()

    async def look(self, product: str, arguments: Sequence[str]) -> Answer:
        """Return what a look at a product finds; of one that is under way, its answer.

        Args:
            product: its name.
            arguments: options that lead to the same settings.

        Raises:
            CallError: it cannot tell.
        """
        look = self._under_way.get(product)
        if look is None:
            look = asyncio.create_task(self._look(product, arguments))
            self._under_way[product] = look
            look.add_done_callback(lambda _: self._under_way.pop(product))
        return await asyncio.shield(look)

    async def _look(self, product: str, arguments: Sequence[str]) -> Answer:
        """Have a process look.

        Raises:
            CallError: it cannot tell.
            failed: the same.
        """
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(*self._command, product, "--json", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    out, _ = await process.communicate()
                outcome = json.loads(out.splitlines()[-1])
                if outcome["result"] == "error":
                    raise failed(outcome["code"], outcome["reason"])
            except (TimeoutError, ValueError, LookupError, TypeError) as error:
                raise failed("transient", "the look did not come to an end") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return {name: outcome.get(name) for name in ("code", "reason", "version")}
