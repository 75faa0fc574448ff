# SPDX-License-Identifier: Apache-2.0
"""Simulate guarded rollouts, by the real decision, planner and backoff.

    python benchmarks/rollout.py             the table of docs/rollouts.md
    python benchmarks/rollout.py --quick     a sample of it, in seconds

A machine hears of a step by the feed (one of twenty has lost its stream and comes back
as core/backoff.py says), or is off (three of ten) and comes later, in six hours on the
average. It then does what core/planner.py says, by the channel's pointer of that
moment: with a spread of an hour it waits for its turn, and asks again before it
activates. One report of fifty is lost; one of ten attempts to send fails and is
repeated by the backoff. Once a minute what was reported is judged by core/watching.py,
and the pointer changes as `release watch` would change it.

`dead`: the rate is of machines that the release leaves without a voice: they never
report. `night`: seven of ten machines are off when a step comes, for half a day.

`liars`: one machine of a hundred says the opposite of what happened to it. `mob`: they
all speak at once, at the start, whether the rollout reached them or not.
"""

import argparse
import heapq
import math
import random
from dataclasses import replace

from updaterd.core.backoff import Backoff
from updaterd.core.channel import ChannelPointer, Offer, Rollout
from updaterd.core.decision import Act, Facts, Wait
from updaterd.core.due import LONGEST_POLL
from updaterd.core.plan import HALTED, RUNNING, Limits, Plan
from updaterd.core.planner import decide
from updaterd.core.rollout import cohort, salt_of
from updaterd.core.watching import Action, Evidence, judge
from updaterd.release.rollouts.plans import BUILT_IN

RATES = (0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0)
HOUR = 3600.0
POLL_S = 6 * HOUR
OFF, OFF_S = 0.3, 6 * HOUR
NIGHT, NIGHT_S = 0.7, 12 * HOUR
BROKEN, LATE, LOST = 0.05, 0.1, 0.02
EVERY_S = 60.0
SPREAD_S = 3600
END_S = 14 * 86400.0
LOOK, ACTIVATE, END, REPORT, TICK = range(5)
MACHINE = Facts(
    now=0.0, machine_id="", updater="1.0.0", platform="linux-x86_64",
    installed_version="1.0", installed_seq=1,
)  # fmt: skip


class World:
    """A fleet, the channel that it follows, and who watches."""

    def __init__(  # noqa: PLR0913 - what a scene is made of
        self, machines, rate, *, plan, seed, liars="", trouble="", stop=None
    ):
        self.machines, self.rate, self.liars = machines, rate, liars
        self.trouble, self.stop = trouble, stop
        self.draw = random.Random(seed).random
        self.queue, self.serial = [], 0
        self.reached = self.last_s = 0
        self.well = self.failed = self.lied_well = self.lied_failed = 0
        self.ticking, self.alarms = False, set()
        version = f"2.{seed}"
        salt = salt_of("acme", version, 2)
        self.ids = {}
        for number in range(machines):
            ident = f"{seed}-{number}"
            self.ids.setdefault(cohort(salt, ident), []).append(ident)
        self.plan = Plan(version=version, steps=plan, halt=Limits(), since=0)
        self.pointer = ChannelPointer(
            product="acme", channel="stable", paused=False, floor_seq=0, plan=self.plan,
            releases=(
                Offer(version=version, seq=2,
                      rollout=Rollout(permille=0, salt=salt, window_s=SPREAD_S)),
                Offer(version="1.0", seq=1, rollout=Rollout(salt="1")),
            ),
        )  # fmt: skip
        self.widen(0.0, plan[0].permille)
        if liars == "mob":
            many = machines // 100
            if rate > 0.02:
                self.lied_well = many
            else:
                self.lied_failed = many
        self.tick(0.0)

    def put(self, at, kind, subject=None):
        self.serial += 1
        heapq.heappush(self.queue, (at, self.serial, kind, subject))

    def tick(self, at):
        if not self.ticking:
            self.ticking = True
            self.put((math.floor(at / EVERY_S) + 1) * EVERY_S, TICK)

    def alarm(self, at):
        if at not in self.alarms:
            self.alarms.add(at)
            self.put(at, TICK, "alarm")

    def heard_after(self):
        """Return when a machine looks, after something was announced."""
        if self.trouble == "no feed":
            return self.draw() * LONGEST_POLL * POLL_S
        if self.trouble == "night" and self.draw() < NIGHT:
            return NIGHT_S * (0.5 + self.draw())
        if self.draw() < OFF:
            return -OFF_S * math.log(1 - self.draw())
        if self.draw() < BROKEN:
            return Backoff().delay(1 + int(4 * self.draw()), draw=self.draw())
        return 1 + 4 * self.draw()

    def widen(self, now, permille):
        offer = self.pointer.releases[0]
        before = offer.rollout.permille
        wider = replace(offer, rollout=replace(offer.rollout, permille=permille))
        releases = (wider, *self.pointer.releases[1:])
        self.pointer = replace(self.pointer, releases=releases, plan=self.plan)
        for number in range(before, permille):
            for ident in self.ids.get(number, ()):
                self.put(now + self.heard_after(), LOOK, (ident, None))

    def run(self):
        """Run until nothing happens any more."""
        while self.queue:
            now, _, kind, subject = heapq.heappop(self.queue)
            if now > END_S or (self.stop and self.plan.step >= self.stop):
                break
            if kind in {LOOK, ACTIVATE}:
                self.look(now, kind, *subject)
            elif kind == END:
                self.ended(now)
            elif kind == REPORT:
                self.well += subject
                self.failed += not subject
                self.tick(now)
            else:
                self.ticking &= subject == "alarm"
                self.judged(now)
        return self

    def look(self, now, kind, ident, seen_at):
        seen_at = now if seen_at is None else seen_at
        facts = replace(MACHINE, now=now, machine_id=ident, first_seen_at=seen_at)
        decision = decide(self.pointer, facts)
        if isinstance(decision, Wait) and decision.until is not None:
            self.put(decision.until, LOOK, (ident, seen_at))
        elif isinstance(decision, Act) and kind == LOOK:
            self.put(now + 5 + 55 * self.draw(), ACTIVATE, (ident, seen_at))
        elif isinstance(decision, Act):
            self.reached += 1
            self.put(now + 30 * self.draw(), END)

    def ended(self, now):
        well = self.draw() >= self.rate
        if self.trouble == "dead" and not well:
            return
        if self.liars == "liars" and self.draw() < 0.01:
            well = not well
        if self.draw() < LOST:
            return
        attempt = 0
        while self.draw() < LATE:
            attempt += 1
            now += Backoff().delay(attempt, draw=self.draw())
        self.put(now + 1, REPORT, well)

    def judged(self, now):
        plan = self.plan
        if plan.state != RUNNING:
            return
        if self.trouble == "no reports" and now < 12 * HOUR:
            self.alarm(12 * HOUR)
            return
        evidence = Evidence(
            well=self.well + self.lied_well,
            failed=self.failed + self.lied_failed,
            reached=self.machines * plan.now_at.permille // 1000,
        )
        verdict = judge(plan, evidence, now=now)
        if verdict.action is Action.HALT:
            self.plan = replace(plan, state=HALTED, reason=verdict.reason)
            self.pointer = replace(self.pointer, paused=True, plan=self.plan)
            self.last_s = now
        elif verdict.action is Action.STEP:
            self.plan = replace(plan, step=plan.step + 1, since=int(now))
            self.widen(now, self.plan.now_at.permille)
            self.tick(now)
        elif verdict.action is Action.DONE:
            self.plan = replace(plan, state="done")
            self.last_s = now
        elif verdict.next_at is not None:
            self.alarm(verdict.next_at)


def name_of(machines):
    return "guarded" if machines >= 20_000 else "guarded-small"


def scene(machines, rate, runs, **more):
    """Return a row: what so many rollouts of one kind came to."""
    plan = BUILT_IN[name_of(machines)]
    worlds = [
        World(machines, rate, plan=plan, seed=seed, **more).run()
        for seed in range(1, runs + 1)
    ]
    states = [world.plan.state for world in worlds]
    most = max(world.reached for world in worlds)
    hours = [world.last_s / HOUR for world in worlds if world.last_s]
    return {
        "machines": machines, "rate": rate, "runs": runs,
        "halted": states.count(HALTED), "done": states.count("done"),
        "held": states.count(RUNNING), "most": most,
        "hours": sorted(hours)[len(hours) // 2] if hours else None,
    }  # fmt: skip


def show(title, rows):
    print(f"\n{title}\n")
    print("| machines | plan | fail | runs | halted | done | held | "
          "reached at most | hours |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        hours = "" if row["hours"] is None else f"{row['hours']:.1f}"
        share = 100 * row["most"] / row["machines"]
        print(
            f"| {row['machines']:,} | {name_of(row['machines'])} "
            f"| {100 * row['rate']:g} % | {row['runs']} "
            f"| {row['halted']} | {row['done']} | {row['held']} "
            f"| {row['most']:,} ({share:.3g} %) | {hours} |",
            flush=True,
        )


def scenes():
    """Return all tables: a title, and what makes its rows one by one."""
    tables = {
        f"{machines:,} machines": [(machines, rate, runs, {}) for rate in RATES]
        for machines, runs in ((1_000, 20), (10_000, 10), (100_000, 2))
    }
    tables["1,000,000 machines"] = [(1_000_000, rate, 1, {}) for rate in RATES[1:]]
    tables["good releases, to the end of the first step"] = [
        (20_000, rate, 1000, {"stop": 1, "liars": liars})
        for rate, liars in ((0.0, ""), (0.001, ""), (0.001, "liars"))
    ]
    for title, rates, more in (
        ("one of a hundred lies when it is its turn", (0.05, 0.2, 1.0),
         {"liars": "liars"}),
        ("one of a hundred of all lies, at once", (0.001, 0.05, 0.2, 1.0),
         {"liars": "mob"}),
        ("no feed: machines look by themselves", (0.001, 0.05, 1.0),
         {"trouble": "no feed"}),
        ("no reports can be read for twelve hours", (0.05, 1.0),
         {"trouble": "no reports"}),
    ):  # fmt: skip
        tables[title] = [(100_000, rate, 3, more) for rate in rates]
    tables["machines that take it are never heard of again"] = [
        (20_000, rate, 2, {"trouble": "dead"}) for rate in (0.2, 0.6, 1.0)
    ]
    tables["seven of ten machines are off for half a day"] = [
        (20_000, 0.001, 1, {"trouble": "night"})
    ]
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=int, metavar="N", help="the Nth table, from 1")
    arguments = parser.parse_args()
    if arguments.quick:
        show("a sample", [scene(20_000, rate, 1, stop=1) for rate in (0.001, 0.05, 1)])
        return
    for number, (title, rows) in enumerate(scenes().items(), 1):
        if arguments.only in {None, number}:
            show(
                title,
                (scene(count, rate, runs, **more) for count, rate, runs, more in rows),
            )


if __name__ == "__main__":
    main()
