# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of its archives is turned over in steps, not in their square."""

import sys

from updaterd.artifact.archives import layout
from updaterd.artifact.archives.virtual import Virtual
from updaterd.artifact.classic import Encoder
from updaterd.artifact.script import MADE, Item, Script


def steps(work):
    """Count what the interpreter does."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def asked(count):
    """Return how many steps it takes to ask for many archives that are read again."""
    items = tuple(Item(f"f{n:06d}", MADE, 0o644, 10) for n in range(count))
    rows = [(n, (10,), ()) for n in range(count)]
    data = layout.encode((Encoder(6),), [], rows, [], list(range(count)))
    virtual = Virtual(data, Script((), items, ()))
    paths = [item.path for item in items]

    return steps(lambda: virtual.present(paths))


def test_ten_times_the_archives_are_ten_times_the_steps():
    assert asked(400) < 11 * asked(40)
