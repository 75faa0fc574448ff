# SPDX-License-Identifier: Apache-2.0
"""A line that breaks is waited for, ever longer unless it brought something."""

import random

import pytest
from fakes.rig import Rig
from fakes.worker import update, worker

from updaterd.errors import TransientError

STEP = 100_000


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    made.ballast = {"data/ballast": random.Random(7).randbytes(6 * STEP)}
    made.push("1.1.0")
    yield made
    made.close()


def breaks_after(step):
    """Give so many bytes more in each run, and then nothing."""
    given = set()

    def answer(handler):
        data = (handler.server.root / handler.path.lstrip("/")).read_bytes()
        asked = handler.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").split("-")[0])
        if start in given or not step:
            handler.whole(b"", status=503)
            return
        given.add(start + step)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header(
            "Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"
        )
        handler.end_headers()
        handler.wfile.write(data[start : start + step])
        handler.close_connection = True
        given.discard(start)

    return answer, given


def test_a_run_that_brought_something_makes_the_next_wait_a_first_one(rig):
    """Waits of 2 to 57 minutes for each megabyte were 3.4 hours for eight."""
    answer, given = breaks_after(STEP)
    with worker(rig.machine) as services:
        failures = []
        for _ in range(3):
            rig.origin.misbehave("/blobs/", answer)
            with pytest.raises(TransientError):
                update(rig.machine, services)
            failures.append(services.journal.failures("acme"))
            given.clear()
        assert failures == [1, 1, 1]

        answer, _ = breaks_after(0)
        rig.origin.misbehave("/blobs/", answer)
        for _ in range(2):
            with pytest.raises(TransientError):
                update(rig.machine, services)
            failures.append(services.journal.failures("acme"))
        assert failures[3:] == [2, 3]

        rig.origin.behave()
        assert update(rig.machine, services).result == "installed"
