# SPDX-License-Identifier: Apache-2.0
"""The table of states is sound, and nothing moves outside it."""

import pytest

from updaterd.core import lifecycle
from updaterd.core.lifecycle import ENDS, TOUCHED, TRANSITIONS, State


def test_every_state_is_reached_and_leads_to_an_end():
    """No state is an island, and none is a trap."""
    reached, todo = set(), [State.QUEUED]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo.extend(TRANSITIONS[state])
    assert set(State) == reached == set(TRANSITIONS)

    to_end = set(ENDS)
    for _ in State:
        to_end |= {s for s, after in TRANSITIONS.items() if after & to_end}
    assert set(State) == to_end


def test_ends_are_exactly_these():
    names = {"INSTALLED", "SKIPPED", "REJECTED", "ROLLED_BACK", "FAILED"}
    assert names == {str(state) for state in ENDS}


def test_once_current_may_move_only_a_verdict_ends_it():
    """From the dangerous stretch no way leads to SKIPPED or REJECTED."""
    for state in TOUCHED:
        assert not TRANSITIONS[state] & {State.SKIPPED, State.REJECTED}


def test_installed_is_reached_only_through_probation():
    assert {State.PROBATION} == {
        state for state, after in TRANSITIONS.items() if State.INSTALLED in after
    }


@pytest.mark.parametrize("before", State)
def test_check_agrees_with_the_table(before):
    for after in State:
        if after in TRANSITIONS[before]:
            lifecycle.check(before, after)
        else:
            with pytest.raises(ValueError, match=str(before)):
                lifecycle.check(before, after)


def test_diagram_has_every_arrow():
    lines = lifecycle.diagram().splitlines()
    arrows = sum(len(after) for after in TRANSITIONS.values()) + len(ENDS) + 1
    assert "stateDiagram-v2" == lines[0]
    assert arrows == len(lines) - 1
