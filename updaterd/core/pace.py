# SPDX-License-Identifier: Apache-2.0
"""The pace of a release: how soon which machines may install it, channels aside.

Theory. The release key signs it in the manifest: when the release was published, and
steps of (machines of 1000, seconds after that). A machine has a cohort, 0 to 999, for
each release (`rollout.cohort`); its turn comes with the first step that reaches beyond
it. The cohort is drawn from what the release key signed, never from what a channel
says: whoever has the online key can delay a turn and cannot bring it forward.

A clock can be wrong. One that shows less than `published_at` is behind, since the
release has been published: seconds are then counted from when the machine first saw it,
by the same clock. So a machine without a clock waits as long as others, and a publisher
whose own clock is years ahead stops nobody. One that is ahead comes early, alone; ahead
by more days than a timestamp is valid, it finds all metadata expired and installs
nothing.
"""

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name
from updaterd.core.rollout import EVERYBODY
from updaterd.core.units import LATEST, format_duration
from updaterd.errors import MalformedError

MAX_STEPS = 16
MAX_AFTER_S = 90 * 86400
"""Seconds until the turn of the last machines, at most."""
MAX_FIRST = 8


@dataclass(frozen=True, slots=True)
class Step:
    """`permille` of the machines, and how many seconds after the publication."""

    permille: int
    after_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a release key signs of how soon its release may be installed.

    Attributes:
        published_at: Unix seconds; 0 in a release that nobody signed yet.
        steps: ascending, the last for every machine.
        first: tags; machines that have one of them belong to the first step.
    """

    published_at: int
    steps: tuple[Step, ...]
    first: tuple[str, ...] = ()

    def as_member(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        return {
            "published_at": self.published_at,
            "steps": [[step.permille, step.after_s] for step in self.steps],
            **({"first": list(self.first)} if self.first else {}),
        }

    @property
    def ends_at(self) -> int:
        """Return when the last machines' turn comes."""
        return self.published_at + self.steps[-1].after_s

    def __str__(self) -> str:
        """Return it for a person."""
        words: list[str] = []
        for step in self.steps:
            whose = "all" if step.permille == EVERYBODY else f"{step.permille}"
            if not words and step.permille < EVERYBODY:
                whose += f" of {EVERYBODY} machines"
            when = (
                f"after {format_duration(step.after_s)}" if step.after_s else "at once"
            )
            words.append(f"{whose} {when}")
        text = ", ".join(words)
        if self.first:
            text += f"; with the first those tagged {', '.join(self.first)}"
        return text


def after_s(pace: Pace, cohort: int, tags: tuple[str, ...] = ()) -> int:
    """Return how many seconds after the publication a machine's turn comes.

    Args:
        pace: of the release.
        cohort: of the machine, 0 to 999 (`rollout.cohort`).
        tags: of the machine.
    """
    if any(tag in pace.first for tag in tags):
        return pace.steps[0].after_s
    return next(step.after_s for step in pace.steps if cohort < step.permille)


def comes_at(pace: Pace, wait_s: int, *, now: float, seen_at: float) -> float:
    """Return when a turn comes, by the clock of the machine, in Unix seconds.

    Args:
        pace: of the release.
        wait_s: as `after_s` says.
        now: by the machine's clock.
        seen_at: when the machine first saw the release, by the same clock.
    """
    if now >= pace.published_at:
        return float(pace.published_at + wait_s)
    return min(seen_at, now) + wait_s


def reached(pace: Pace, now: float) -> int:
    """Return how many machines of 1000 may install it at a time, tags left aside."""
    past = (
        step.permille for step in pace.steps if now >= pace.published_at + step.after_s
    )
    return max(past, default=0)


def read(item: Fields) -> Pace:
    """Return the pace in a document.

    Raises:
        MalformedError: it makes no sense, or some machines' turn would never come.
    """
    pace = Pace(
        published_at=item.integer("published_at", high=LATEST),
        steps=tuple(Step(*row) for row in item.pairs("steps", most=MAX_STEPS)),
        first=tuple(
            check_name("tag", tag) for tag in item.texts("first", most=MAX_FIRST)
        ),
    )
    if fault := fault_of(pace.steps):
        raise MalformedError(f"{item.where}: {fault}")
    return pace


def fault_of(steps: tuple[Step, ...]) -> str:
    """Return what is wrong with steps; empty for nothing."""
    if not 1 <= len(steps) <= MAX_STEPS:
        return f"a pace has 1 to {MAX_STEPS} steps, this has {len(steps)}"
    shares = [step.permille for step in steps]
    waits = [step.after_s for step in steps]
    if shares != sorted(set(shares)) or waits != sorted(set(waits)):
        return (
            "each step of a pace is for more machines, and later, than the one before"
        )
    if shares[0] < 1 or shares[-1] != EVERYBODY:
        return f"the steps of a pace go from 1 to {EVERYBODY} of {EVERYBODY} machines"
    if waits[0] < 0 or waits[-1] > MAX_AFTER_S:
        return f"the steps of a pace are over after {MAX_AFTER_S // 86400} days at most"
    return ""
