# SPDX-License-Identifier: Apache-2.0
"""The life of one deployment: its states, and which may follow which.

Theory. A deployment brings one product from what is installed to one release. Up
to STAGED nothing that runs is touched, so a dead run is simply resumed. ACTIVATING
to PROBATION is the dangerous stretch: there the journal, not the disk, says which
way to go. Every transition is journalled *before* the disk is touched, so that
after any crash the journal names the step that may be half done, never one later.

    QUEUED        decided, nothing done
    PLANNED       the signed manifest is read, the bundles are chosen
    FETCHING      downloading bundles (resumed by Range)
    STAGING       building the tree in a private directory
    STAGED        the tree is whole, verified and durable in releases/VERSION
    ACTIVATING    `previous` and `current` may be moving
    PROBATION     `current` is the new release; units restart, health is checked
    ROLLING_BACK  the verdict was bad: `current` may be moving back

and the ends: INSTALLED, SKIPPED (not wanted any more), REJECTED (this release will
never do), ROLLED_BACK (it ran and failed), FAILED (this machine could not).

ROLLING_BACK stands apart from PROBATION because the verdict must be durable before
`current` moves: a crash while going back must go on going back, with the reason
that was found, and must not judge the release anew.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a deployment stands; the value is what the journal stores."""

    QUEUED = "QUEUED"
    PLANNED = "PLANNED"
    FETCHING = "FETCHING"
    STAGING = "STAGING"
    STAGED = "STAGED"
    ACTIVATING = "ACTIVATING"
    PROBATION = "PROBATION"
    ROLLING_BACK = "ROLLING_BACK"
    INSTALLED = "INSTALLED"
    SKIPPED = "SKIPPED"
    REJECTED = "REJECTED"
    ROLLED_BACK = "ROLLED_BACK"
    FAILED = "FAILED"


_S = State
_GIVE_UP = frozenset({_S.SKIPPED, _S.REJECTED, _S.FAILED})

TRANSITIONS: dict[State, frozenset[State]] = {
    _S.QUEUED: frozenset({_S.PLANNED}) | _GIVE_UP,
    # again when resumed; straight to STAGED when the release is on disk already
    _S.PLANNED: frozenset({_S.PLANNED, _S.FETCHING, _S.STAGING, _S.STAGED}) | _GIVE_UP,
    # a resumed run plans anew: the manifest may list cheaper bundles by now
    _S.FETCHING: frozenset({_S.PLANNED, _S.FETCHING, _S.STAGING}) | _GIVE_UP,
    # back to FETCHING when a delta did not apply and the next path is tried
    _S.STAGING: frozenset({_S.PLANNED, _S.FETCHING, _S.STAGING, _S.STAGED}) | _GIVE_UP,
    _S.STAGED: frozenset({_S.PLANNED, _S.ACTIVATING}) | _GIVE_UP,
    _S.ACTIVATING: frozenset({_S.PROBATION, _S.ROLLING_BACK, _S.FAILED}),
    # again when a roll back that a person ordered was interrupted on trial
    _S.PROBATION: frozenset({_S.PROBATION, _S.INSTALLED, _S.ROLLING_BACK}),
    _S.ROLLING_BACK: frozenset({_S.ROLLED_BACK, _S.FAILED}),
    _S.INSTALLED: frozenset(),
    _S.SKIPPED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.ROLLED_BACK: frozenset(),
    _S.FAILED: frozenset(),
}
"""State -> the states that may follow. One without successors is an end."""

ENDS = frozenset(state for state, after in TRANSITIONS.items() if not after)
"""States in which nothing is left to do."""

TOUCHED = frozenset({_S.ACTIVATING, _S.PROBATION, _S.ROLLING_BACK})
"""States in which `current` may name another release than the installed one."""


def check(before: State, after: State) -> None:
    """Check that `after` may follow `before`.

    Raises:
        ValueError: it may not: a defect in the pipeline, never bad input.
    """
    if after not in TRANSITIONS[before]:
        raise ValueError(f"no transition {before} -> {after}")


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> QUEUED"]
    for before, afters in TRANSITIONS.items():
        lines.extend(
            f"    {before} --> {after}"
            for after in State  # in the order of the definition, so it is stable
            if after in afters
        )
        if not afters:
            lines.append(f"    {before} --> [*]")
    return "\n".join(lines) + "\n"


def way_out(state: State) -> tuple[State, ...]:
    """Return by which states an open deployment ends that nobody wants any more."""
    if State.SKIPPED in TRANSITIONS[state]:
        return (State.SKIPPED,)
    if State.FAILED in TRANSITIONS[state]:
        return (State.FAILED,)
    return (State.ROLLING_BACK, State.FAILED)
