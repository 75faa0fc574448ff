# SPDX-License-Identifier: Apache-2.0
"""How tasks are ended that run others' code."""

import asyncio
from collections.abc import Iterable

_AGAIN_S = 0.2


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until each has ended, however it did.

    One request is not enough: before Python 3.12 `asyncio.wait_for` forgets one that
    comes in the step in which what it waits for is done, and clients of Redis send
    each command through it. The task would go on, and the server never stop.
    """
    open_ = set(tasks)
    while open_:
        for task in open_:
            task.cancel()
        done, open_ = await asyncio.wait(open_, timeout=_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # it was told where it ended
