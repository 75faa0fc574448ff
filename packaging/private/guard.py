#!/usr/bin/python3 -IS
"""Watch a release of updaterd on trial, from outside of it.

Called by updaterd.service before it starts, when it is ready and after it stopped,
as the daemon's user. Part of the package, not of what self-updates replace; only the
standard library; nothing here may fail in a way that keeps the daemon from starting.

A release is on trial until it has been ready for PROVEN_S seconds. MOST_FAILURES
starts that end in a crash, a hang (the watchdog) or no readiness, or MOST_SHORT runs
that merely end early, and the last good release is put back and the other condemned.
A reboot or a power cut is nobody's failure.
"""

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

PROVEN_S = 120.0
MOST_FAILURES = 2
MOST_SHORT = 10
PACKAGED = "/usr/lib/updaterd/site"
PYTHON = "/usr/lib/updaterd/bin/python"


class Guard:
    """The trial of one product root.

    Args:
        own: root of the product `updaterd`.
        state: updaterd's state directory.
        cache: its cache directory.
        clock: seconds since boot.
        start: what systemd calls this start of the service (INVOCATION_ID).
    """

    def __init__(self, own, state, cache, clock, start):
        self.own = own
        self.note = os.path.join(state, "guard.json")
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
                found = json.load(file)
            return found if isinstance(found, dict) else {}
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
        note, release = self.load(), self.running()
        self.finish_condemning(note)
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

    def ready(self):
        note = self.load()
        note["ready_at"] = self.clock()
        self.save(note)
        self.forget_bytecode()

    def stopped(self, result):
        note, release = self.load(), self.running()
        if release is None or note.get("trial") != release:
            return
        since = note.get("ready_at")
        seen = note.get("start") == self.start
        if seen and since is not None and self.clock() - since >= PROVEN_S:
            note["good"] = note.pop("trial")
        elif result == "success":
            note["short"] = note.get("short", 0) + 1
        elif seen:
            note["failures"] = note.get("failures", 0) + 1
        why = None
        if note.get("failures", 0) >= MOST_FAILURES:
            why = f"it failed {note['failures']} times on trial, last: {result}"
        elif note.get("short", 0) >= MOST_SHORT:
            why = f"it ended by itself {note['short']} times within its trial"
        if why and "trial" in note:
            note.pop("trial")
            note.update(failures=0, short=0, condemned={"release": release, "why": why})
            self.save(note)  # first: whatever happens next can be repeated
            self.finish_condemning(note)
        self.save(note)

    def forget_bytecode(self):
        """Delete what was compiled of releases that are gone (_updaterd_site.py)."""
        releases = os.path.join(os.path.realpath(self.own), "releases")
        compiled = self.cache + "/pycache" + releases
        with contextlib.suppress(OSError):
            for name in os.listdir(compiled):
                if not os.path.isdir(os.path.join(releases, name)):
                    shutil.rmtree(os.path.join(compiled, name), ignore_errors=True)

    def keep_database(self):
        """Copy the journal before a new release may change its layout."""
        try:
            copy(os.path.join(self.state, "state.db"), self.note + ".state.db")
        except (OSError, sqlite3.Error) as error:
            say(f"the journal could not be copied: {error}")

    def restore_database(self):
        """Take the copy back if the condemned release changed the journal's layout.

        The copy is older: what was installed meanwhile is found on disk again.
        """
        kept, used = self.note + ".state.db", os.path.join(self.state, "state.db")
        try:
            if os.path.exists(kept) and layout(kept) < layout(used):
                copy(kept, used)
                say("the journal is that of before the trial: its layout had changed")
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
        self.restore_database()
        site = os.path.join(releases, good) if good else PACKAGED
        if not os.path.isdir(site):
            site = PACKAGED
        code = (
            "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
            "runpy.run_module('updaterd.successor', run_name='__main__', "
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


def layout(path):
    """Return the version of a database's tables."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


def copy(source, target):
    """Copy a database, whole or not at all, whoever has it open."""
    if not os.path.exists(source):
        return
    with (
        contextlib.closing(sqlite3.connect(source, timeout=10)) as there,
        contextlib.closing(sqlite3.connect(target, timeout=10)) as here,
    ):
        there.backup(here)


def say(text):
    print(f"<4>guard: {text}", file=sys.stderr, flush=True)


def main(argv):
    own = os.environ.get("UPDATERD_GUARD_OWN", "/opt/updaterd")
    state = os.environ.get("STATE_DIRECTORY", "/var/lib/updaterd").split(":")[0]
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
        guard.ready()
    elif argv[1:] == ["stopped"]:
        guard.stopped(os.environ.get("SERVICE_RESULT", "success"))
    else:
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
