# SPDX-License-Identifier: Apache-2.0
"""The wheel: everyone served once a turn, spread, rotated in time."""

import contextlib
from collections import Counter

from updaterd.server.streams.wheel import Wheel


class Passenger:
    def __init__(self):
        self.turns = self.slot = self.beats = self.rotations = 0

    def beat(self):
        self.beats += 1

    def rotate(self):
        self.rotations += 1


async def test_everyone_is_served_once_a_turn():
    """However many, each slot in its tick."""
    wheel = Wheel(period_s=15, slots=10, slice_size=7)
    crowd = [Passenger() for _ in range(1000)]
    for one in crowd:
        wheel.add(one, turns=100)
    for _ in range(3 * 10):
        await wheel.turn()
    assert {one.beats for one in crowd} == {3}


def test_slots_are_filled_evenly():
    """Heartbeats of a fleet are spread over the period."""
    wheel = Wheel(period_s=15, slots=10)
    crowd = [Passenger() for _ in range(1000)]
    for one in crowd:
        wheel.add(one, turns=100)
    assert set(Counter(one.slot for one in crowd).values()) == {100}


async def test_rotation_after_its_turns():
    """One that had five turns gets four beats, then goodbye."""
    wheel = Wheel(period_s=15, slots=2)
    one = Passenger()
    wheel.add(one, turns=5)
    for _ in range(10):
        await wheel.turn()
    assert (one.beats, one.rotations) == (4, 1)


async def test_removed_is_not_served():
    """Nor is removing twice an error."""
    wheel = Wheel(period_s=15, slots=2)
    one = Passenger()
    wheel.add(one, turns=5)
    wheel.remove(one)
    wheel.remove(one)
    for _ in range(4):
        await wheel.turn()
    assert (one.beats, len(wheel)) == (0, 0)


async def test_long_stall_is_let_go():
    """After an hour asleep: one turn's heartbeats, not an hour's; no rotation."""
    wheel = Wheel(period_s=1.0, slots=4)
    one = Passenger()
    wheel.add(one, turns=1000)
    times = iter([0.0, 0.0, 3600.0] + [3600.0] * 12)

    def clock():
        for time in times:
            return time
        raise RuntimeError

    with contextlib.suppress(RuntimeError):
        await wheel.run(clock)
    assert 1 <= one.beats <= 2
    assert one.rotations == 0
