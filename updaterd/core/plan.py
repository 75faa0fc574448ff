# SPDX-License-Identifier: Apache-2.0
"""The plan of a guarded rollout: its steps, and when it is to be stopped.

It stands in the channel's pointer, signed by the online key, so that whoever carries it
out, a second one who does, and a machine's `status` all read the same. A machine only
shows it: what it installs follows from the offers beside it and from whether the
channel is paused.
"""

from updaterd.core.dataclass import dataclass
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name, check_version
from updaterd.core.units import LATEST
from updaterd.errors import MalformedError

RUNNING, HALTED, DONE, BY_HAND = "running", "halted", "done", "by_hand"
"""What a plan's state can be. Others are left alone: a newer updaterd wrote them."""
MAX_STEPS = 16
MAX_TAGS = 8
LONGEST_REASON = 200
_EVERYBODY = 1000
_LONGEST_DWELL_S = 366 * 86400
_MOST_REPORTS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """So many machines, for at least so long, until so many have reported.

    Attributes:
        permille: machines of 1000 that the step reaches.
        tags: machines with one of these reach it, whatever their turn.
        dwell_s: how long it lasts at least.
        min_reports: machines that have told how the release ended there, at least.
    """

    permille: int
    tags: tuple[str, ...] = ()
    dwell_s: int = 0
    min_reports: int = 1

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        item: dict[str, object] = {
            "permille": self.permille,
            "dwell_s": self.dwell_s,
            "min_reports": self.min_reports,
        }
        return item | ({"tags": list(self.tags)} if self.tags else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a release is stopped. All of 1000: signed documents have no fractions.

    Attributes:
        failed_permille: machines that may fail by the release's own fault.
        silent_permille: machines that may stay silent once a step's time is over;
            1000: all of them.
        confidence: how sure one has to be that it is more.
    """

    failed_permille: int = 20
    silent_permille: int = 1000
    confidence: int = 990

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        return {
            "failed_permille": self.failed_permille,
            "silent_permille": self.silent_permille,
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one release is rolled out on a channel, and where that stands.

    Attributes:
        version: the release.
        step: which of the steps it is at.
        since: when that began, Unix seconds.
        reason: why it is in its state, for people.
    """

    version: str
    steps: tuple[Step, ...]
    halt: Limits
    state: str = RUNNING
    step: int = 0
    since: int = 0
    reason: str = ""

    @property
    def now_at(self) -> Step:
        """Return the step that it is at."""
        return self.steps[self.step]

    @property
    def is_last(self) -> bool:
        """Tell whether no step follows."""
        return self.step == len(self.steps) - 1

    def as_custom(self) -> dict[str, object]:
        """Return the JSON object that is signed."""
        return {
            "version": self.version,
            "steps": [step.as_custom() for step in self.steps],
            "halt": self.halt.as_custom(),
            "state": self.state,
            "step": self.step,
            "since": self.since,
            "reason": self.reason,
        }


def _step(item: Fields) -> Step:
    return Step(
        permille=item.integer("permille", high=_EVERYBODY) if "permille" in item else 0,
        tags=tuple(check_name("tag", tag) for tag in item.texts("tags", most=MAX_TAGS)),
        dwell_s=item.integer("dwell_s", high=_LONGEST_DWELL_S),
        min_reports=item.integer("min_reports", high=_MOST_REPORTS),
    )


def parse_steps(item: Fields) -> tuple[tuple[Step, ...], Limits]:
    """Return the steps and limits of a plan, as a person or the pointer wrote them.

    Raises:
        MalformedError: none, too many, or one that reaches fewer than the one before.
    """
    steps = item.objects("steps", _step, most=MAX_STEPS)
    reached = [step.permille for step in steps]
    if not steps or reached != sorted(reached):
        raise MalformedError(f"{item.where}: steps must be some, each as wide or wider")
    if any(not step.permille and not step.tags for step in steps):
        raise MalformedError(f"{item.where}: a step reaches nobody")
    limits = Limits()
    if "halt" in item:
        halt = item.fields("halt")
        values = {
            name: halt.integer(name, high=_EVERYBODY)
            for name in limits.as_custom()
            if name in halt
        }
        limits = Limits(**values)
    if not 0 < limits.confidence < _EVERYBODY:
        raise MalformedError(f"{item.where}: a confidence is from 1 to 999")
    return steps, limits


def parse(item: Fields) -> Plan:
    """Return the plan in a pointer.

    Raises:
        MalformedError: it is none.
    """
    steps, limits = parse_steps(item)
    reason = item.text("reason", longest=LONGEST_REASON) if "reason" in item else ""
    if not reason.isprintable():
        raise MalformedError(f"{item.where}: its reason is not one line of text")
    return Plan(
        version=check_version(item.text("version")),
        steps=steps,
        halt=limits,
        state=item.text("state", longest=32),
        step=item.integer("step", high=len(steps) - 1),
        since=item.integer("since", high=LATEST),
        reason=reason,
    )


def described(steps: tuple[Step, ...]) -> str:
    """Return the steps in a few words: "1 % -> 10 % -> all"."""
    return " -> ".join(reach_of(step) for step in steps)


def reach_of(step: Step) -> str:
    """Return whom a step reaches, in a few words."""
    share = "all" if step.permille == _EVERYBODY else f"{step.permille / 10:g} %"
    if not step.tags:
        return share
    return " + ".join([*([share] if step.permille else []), *step.tags])
