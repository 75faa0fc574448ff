# SPDX-License-Identifier: Apache-2.0
"""Many who ask for a look at once: none takes the memory that others live by."""

import asyncio
import os
import sys

import pytest

from updaterd.api.looks import Looks
from updaterd.api.wire import CallError

# tells that it runs, and ends when it is told to
_LOOK = """
import os, sys
log, go, product = sys.argv[1:4]
with open(log, "a") as file:
    file.write(product + "\\n")
with open(go + product) as file:
    print(file.read())
"""
_FOUND = '{"result": "waits", "code": "splay", "reason": "soon", "version": "2"}'


@pytest.fixture
def scene(tmp_path):
    log = tmp_path / "log"
    for product in ("acme", "other"):
        os.mkfifo(tmp_path / product)

    async def end(product, text=_FOUND):
        """Have the look at a product end, as soon as it is under way."""
        await asyncio.to_thread((tmp_path / product).write_text, text)

    words = (sys.executable, "-I", "-c", _LOOK, str(log), f"{tmp_path}/")
    return Looks(words), log, end


async def test_a_flood_of_looks_is_one_process_for_each_product_in_turn(scene):
    looks, log, end = scene
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(looks.look(product, ()))
            for product in ("acme", "other", "acme", "other", "acme")
        ]
        await end("acme")
        await end("other")
    assert log.read_text().split() == ["acme", "other"]
    assert {task.result()["code"] for task in asked} == {"splay"}


async def test_who_leaves_does_not_end_the_look_of_others(scene):
    looks, log, end = scene
    leaves = asyncio.create_task(looks.look("acme", ()))
    stays = asyncio.create_task(looks.look("acme", ()))
    await asyncio.sleep(0)
    leaves.cancel()
    await end("acme")
    assert (await stays)["version"] == "2"
    assert log.read_text().split() == ["acme"]


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}"])
async def test_a_look_that_says_nothing_failed_and_the_next_one_is_anew(scene, text):
    looks, log, end = scene
    for _ in range(2):
        look = asyncio.create_task(looks.look("acme", ()))
        await end("acme", text)
        with pytest.raises(CallError):
            await look
    assert log.read_text().split() == ["acme", "acme"]
