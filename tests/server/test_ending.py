# SPDX-License-Identifier: Apache-2.0
"""The end of tasks."""

import asyncio

from updaterd.server.ending import end


async def test_a_task_that_forgets_a_request_to_end_ends_nevertheless():
    """As one does that was in a library's `wait_for` in just that moment."""
    requests = 0

    async def forgetful():
        nonlocal requests
        while requests < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                requests += 1

    async def failing():
        raise OSError

    async def usual():
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(work()) for work in (forgetful, failing, usual)]
    await asyncio.sleep(0)
    await end(tasks)
    assert all(task.done() for task in tasks)
    assert requests == 3
    await end([])
