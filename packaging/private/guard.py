#!/usr/bin/python3 -IS
# SPDX-License-Identifier: Apache-2.0
"""Watch a release of updaterd on trial, from outside of it.

Called by updaterd.service before it starts, when it is ready and after it stopped,
as the daemon's user. Part of the package, not of what self-updates replace; only the
standard library; nothing here may fail in a way that keeps the daemon from starting.

A release is on trial until it has been ready for PROVEN_S seconds, and its own worker
has shown, as soon as it is ready, that it can update something (`self-test`). One that
cannot, MOST_FAILURES starts that end in a crash, a hang (the watchdog) or no
readiness, or MOST_SHORT runs that merely end early, and the last good release is put
back and the other condemned. A stop that was ordered, of the service or the machine,
and a power cut are nobody's failure.

What was condemned stays in the note, `guard.json`, which the daemon's workers read: the
journal may be lost, or made anew, and the loop must not begin again.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import guard_journal

PROVEN_S = 120.0
MOST_FAILURES = 2
MOST_SHORT = 10
PACKAGED = "/usr/lib/updaterd/site"
PYTHON = "/usr/lib/updaterd/bin/python"
SELF_TEST = "/usr/lib/updaterd/self-test"
SELF_TEST_S = 50  # less than the unit's TimeoutStartSec
SYSTEMCTL = "/usr/bin/systemctl"
PRIVATE = "/usr/lib/updaterd/lib/python3.11/site-packages"
UNITS = ("STATE_DIRECTORY", "CACHE_DIRECTORY", "INVOCATION_ID", "SERVICE_RESULT",
         "MAINPID", "UPDATERD_GUARD_OWN")  # fmt: skip
MOST_LEFT = 20  # condemned releases that are remembered


def holds_mount(folder):
    """Tell whether something is mounted in a folder: that is not ours to delete."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        places = [line.split()[4] for line in file]
    return any(place == folder or place.startswith(folder + "/") for place in places)


class Guard:
    """The trial of one product root.

    Args:
        own: root of the product `updaterd`.
        state: updaterd's state directory; of an instance, `updaterd-NAME`.
        cache: its cache directory.
        clock: seconds since boot.
        start: what systemd calls this start of the service (INVOCATION_ID).
    """

    def __init__(self, own, state, cache, clock, start):
        self.own = own
        self.unit = os.path.basename(state).replace("-", "@", 1) + ".service"
        self.note = os.path.join(state, "guard.json")
        self.journal = os.path.join(state, "state.db")
        self.copy = self.note + ".state.db"
        self.state = state
        self.cache = cache
        self.clock = clock
        self.start = start

    def running(self):
        """Return the release that `current` names, None for the packaged one."""
        try:
            target = os.readlink(os.path.join(self.own, "current"))
        except OSError:
            return None
        return os.path.basename(target)

    def load(self):
        try:
            with open(self.note, encoding="utf-8") as file:
                note = json.load(file)
            return note if isinstance(note, dict) else {}
        except (OSError, ValueError):
            return {}

    def save(self, note):
        fresh = self.note + ".new"
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(note, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.note)

    def starting(self):
        note = self.load()
        self.finish_condemning(note)
        release = self.running()
        if release is None and (note.get("good") or note.get("trial")):
            note["aside"] = True  # a person removed `current`: the package runs
        elif release:
            note.pop("aside", None)
        if release != note.get("good") and release != note.get("trial"):
            before = note.get("trial")
            if before and note.get("ready_at") is not None and not note.get("failures"):
                note["good"] = before  # well enough to have installed this one
            note.update(trial=release, failures=0, short=0)
            self.keep_database()
        elif release == note.get("good"):
            note.pop("trial", None)
        note.update(start=self.start, ready_at=None)
        note.setdefault("good", None)
        self.save(note)

    def ready(self, pid):
        note = self.load()
        note["ready_at"] = self.clock()
        self.save(note)
        self.forget_bytecode()
        release = self.running()
        if release is None or note.get("trial") != release:
            return
        why = self.prove(release)
        note = self.load()  # it may have ended meanwhile
        if why and note.get("trial") == release:
            note["unproven"] = why
            self.save(note)
            if pid > 1:
                os.kill(pid, signal.SIGTERM)  # `stopped` leaves it

    def prove(self, release):
        """Let a release's own worker update something; return why it cannot, or None.

        Only its own "no" counts: not that it took too long, or was killed.
        """
        tree = os.path.join(os.path.realpath(self.own), "releases", release)
        try:
            done = subprocess.run(
                [SELF_TEST],
                env={**os.environ, "UPDATERD_RELEASE": tree},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SELF_TEST_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            say(f"the self-test of updaterd {release} gave no answer: {error}")
            return None
        if done.returncode != 1:
            return None
        return "self-test: " + (done.stderr.strip().splitlines() or ["no"])[-1][:300]

    def stopped(self, result):
        note, release = self.load(), self.running()
        since, is_known = note.get("ready_at"), note.get("start") == self.start
        proven = is_known and since is not None and self.clock() - since >= PROVEN_S
        if release is not None and note.get("trial") == release:
            self.judge(note, release, result, is_known=is_known, proven=proven)
        elif release == note.get("good") and note.get("returned"):
            self.look_after_return(note, result, is_known=is_known, proven=proven)

    def judge(self, note, release, result, *, is_known, proven):
        """Count the end of a start on trial, and leave what has failed enough."""
        why = note.pop("unproven", None)
        if not why and proven:
            note["good"] = note.pop("trial")
            note.pop("returned", None)
            note.get("left", {}).pop(release, None)  # a person tried it again
        elif not why and not self.is_ordered(result):
            if result == "success":
                note["short"] = note.get("short", 0) + 1
            elif is_known:
                note["failures"] = note.get("failures", 0) + 1
        if note.get("failures", 0) >= MOST_FAILURES:
            why = f"it failed {note['failures']} times on trial, last: {result}"
        elif note.get("short", 0) >= MOST_SHORT:
            why = f"it ended by itself {note['short']} times within its trial"
        if why and "trial" in note:
            note.pop("trial")
            note.update(failures=0, short=0, condemned={"release": release, "why": why})
            dismissed = note.setdefault("left", {})
            dismissed[release] = {
                "why": why,
                "at": time.time(),
                "seq": self.seq(release),
            }
            by_time = sorted(dismissed, key=lambda name: dismissed[name]["at"])
            for name in by_time[:-MOST_LEFT]:
                del dismissed[name]
            self.save(note)  # first: whatever happens next can be repeated
            self.finish_condemning(note)
        self.save(note)

    def look_after_return(self, note, result, *, is_known, proven):
        """Put the copy of the journal back if the good release fails with what is left.

        Not by its layout: by what is in it.
        """
        if proven:
            note.pop("returned")
        elif is_known and result != "success" and not self.is_ordered(result):
            note["returned"]["failures"] = note["returned"].get("failures", 0) + 1
            if note["returned"]["failures"] >= MOST_FAILURES:
                bad = note.pop("returned")["from"]
                self.put_back(bad, "the good release fails with what is in it")
        self.save(note)

    def is_ordered(self, result):
        """Tell whether a person, or the machine's own end, stopped the service."""
        if "stopping" in ask("is-system-running").split():
            return True
        jobs = ask("list-jobs", "--no-legend", "--plain", self.unit).split()
        return result == "success" and bool({"stop", "restart"} & {*jobs})

    def seq(self, release):
        """Return a release's place in the order, as its listing says it; else None."""
        name = os.path.join(self.own, ".updaterd", "manifests", f"{release}.json")
        try:
            with open(name, encoding="utf-8") as file:
                return int(json.load(file)["seq"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget_bytecode(self):
        """Delete what was compiled of releases that are gone (_updaterd_site.py)."""
        releases = os.path.join(os.path.realpath(self.own), "releases")
        compiled = self.cache + "/pycache" + releases
        with contextlib.suppress(OSError):
            for name in os.listdir(compiled):
                path = os.path.join(compiled, name)
                is_deleted = not os.path.isdir(os.path.join(releases, name))
                if is_deleted and not holds_mount(path):
                    shutil.rmtree(path, ignore_errors=True)

    def keep_database(self):
        """Copy the journal before a new release may change its layout."""
        try:
            guard_journal.keep(self.journal, self.copy)
        except (OSError, sqlite3.Error) as error:
            say(f"the journal could not be copied: {error}")

    def restore_database(self, bad):
        """Take the copy back if the condemned release changed the journal's tables."""
        try:
            changed = guard_journal.has_changed(self.journal, self.copy)
        except (OSError, sqlite3.Error) as error:
            say(f"the copy of the journal cannot be read: {error}")
            return
        if changed:
            self.put_back(bad, "its tables had changed")

    def put_back(self, bad, why):
        """Take the copy back; what was installed meanwhile is found on disk again."""
        aside = f"{self.journal}.left-by-{bad}"
        try:
            if os.path.exists(self.copy):
                guard_journal.restore(self.journal, self.copy, aside)
                say(f"the journal is that of before the trial: {why}; kept as {aside}")
        except (OSError, sqlite3.Error) as error:
            say(f"the journal could not be put back: {error}")

    def finish_condemning(self, note):
        """Put the good release back; journal the verdict. Safe to repeat."""
        verdict = note.get("condemned")
        if not verdict:
            return
        bad, good = verdict["release"], note.get("good")
        releases = os.path.join(self.own, "releases")
        current = os.path.join(self.own, "current")
        if self.running() == bad:
            if good and os.path.isdir(os.path.join(releases, good)):
                fresh = os.path.join(self.own, ".current.guard")
                if os.path.lexists(fresh):
                    os.unlink(fresh)
                os.symlink(os.path.join("releases", good), fresh)
                os.replace(fresh, current)
            else:  # the packaged release is the good one
                os.unlink(current)
                aside = os.path.join(releases, f".condemned-{bad}")
                if not os.path.lexists(aside):
                    os.rename(os.path.join(releases, bad), aside)
            say(
                f"updaterd {bad} is left for {good or 'the packaged one'}: "
                f"{verdict['why']}"
            )
        self.restore_database(bad)
        note["returned"] = {"from": bad}
        site = os.path.join(releases, good) if good else PACKAGED
        if not os.path.isdir(site):
            site = PACKAGED
        code = (
            "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
            "runpy.run_module('updaterd.self_update', run_name='__main__', "
            "alter_sys=True)"
        )
        done = subprocess.run(
            [
                PYTHON,
                "-IB",  # nothing may appear in a signed, closed tree
                "-c",
                code,
                site,
                "condemn",
                self.state,
                bad,
                verdict["why"],
                str(time.time()),
            ],
            timeout=30,
            check=False,
        )
        if done.returncode == 0:
            note.pop("condemned")
        else:
            say(
                f"updaterd {bad} could not be blocked ({done.returncode}); "
                "the next start tries again"
            )


def ask(*words):
    """Return what systemctl says; nothing when it does not."""
    try:
        return subprocess.run(
            [SYSTEMCTL, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def say(text):
    print(f"<4>guard: {text}", file=sys.stderr, flush=True)


def main(argv):
    state = os.environ.get("STATE_DIRECTORY", "/var/lib/updaterd").split(":")[0]
    if os.geteuid() == 0:
        sys.path.append(PRIVATE)
        import _updaterd_user

        owner = _updaterd_user.owner_of(state)
        if owner is not None:  # what that user may write is not root's to run
            again = [sys.executable, "-IS", os.path.realpath(__file__), *argv[1:]]
            return _updaterd_user.run(owner, again, keep=UNITS)
    own = f"/opt/{os.path.basename(state)}"
    own = os.environ.get("UPDATERD_GUARD_OWN", own)
    if not os.path.islink(os.path.join(own, "current")) and not os.path.exists(
        os.path.join(state, "guard.json")
    ):
        return 0  # this machine never updated its updater
    start = os.environ.get("INVOCATION_ID", "")
    cache = os.environ.get("CACHE_DIRECTORY", "/var/cache/updaterd").split(":")[0]
    clock = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    guard = Guard(own, state, cache, clock, start)
    if argv[1:] == ["starting"]:
        guard.starting()
    elif argv[1:] == ["ready"]:
        guard.ready(int(os.environ.get("MAINPID", "0")))
    elif argv[1:] == ["stopped"]:
        guard.stopped(os.environ.get("SERVICE_RESULT", "success"))
    else:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
