# SPDX-License-Identifier: Apache-2.0
"""The guard of self-updates, run as systemd runs it, over releases that are folders."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from updaterd.core.settings import ITSELF
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state

GUARD = Path(__file__).parents[2] / "packaging/private/guard.py"


class Machine:
    """`/opt/updaterd`, a state directory, and systemd's calls."""

    def __init__(self, root: Path):
        self.own, self.state = root / "own", root / "state"
        self.cache = root / "cache"
        self.state.mkdir(parents=True)
        (self.own / "releases").mkdir(parents=True)
        # stands for /usr/lib/updaterd/bin/python: notes how it was called
        self.called = root / "called"
        self.python = root / "python"
        self.python.write_text(f'#!/bin/sh\necho "$@" >> {self.called}\n')
        self.python.chmod(0o755)
        self.self_test = self.program("self-test", "exit 0")
        self.systemctl = self.program("systemctl", "echo running")
        self.now, self.starts = 1000.0, 0

    def program(self, name: str, script: str) -> Path:
        path = self.state.parent / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def install(self, version: str):
        (self.own / "releases" / version).mkdir()
        self.switch(version)

    def switch(self, version: str):
        link = self.own / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{version}")

    @property
    def running(self):
        link = self.own / "current"
        return link.readlink().name if link.is_symlink() else None

    def call(self, what: str, result: str = "success", **env: str):
        code = (
            "import runpy, sys, time; now = float(sys.argv.pop(1));"
            "time.clock_gettime = lambda _: now;"
            "space = runpy.run_path(sys.argv.pop(1));"
            "at = space['main'].__globals__;"
            "at['PYTHON'], at['SELF_TEST'], at['SYSTEMCTL'] = sys.argv[1:4];"
            "del sys.argv[1:4];"
            "sys.exit(space['main'](sys.argv))"
        )
        return subprocess.run(
            [
                sys.executable,
                "-IS",
                "-c",
                code,
                str(self.now),
                GUARD,
                self.python,
                self.self_test,
                self.systemctl,
                what,
            ],
            env={
                "UPDATERD_GUARD_OWN": str(self.own),
                "STATE_DIRECTORY": str(self.state),
                "CACHE_DIRECTORY": str(self.cache),
                "INVOCATION_ID": str(self.starts),
                "SERVICE_RESULT": result,
                **env,
            },
            capture_output=True,
            text=True,
            check=True,
        )

    def start(self, *, ready: bool = True):
        self.starts += 1
        self.call("starting")
        if ready:
            self.call("ready")

    def run(self, seconds: float, result: str = "success", *, ready: bool = True):
        self.start(ready=ready)
        self.now += seconds
        return self.call("stopped", result)

    @property
    def condemned(self):
        return self.called.read_text() if self.called.exists() else ""


@pytest.fixture
def machine(tmp_path):
    found = Machine(tmp_path)
    found.install("1.0")
    found.run(1000)  # 1.0 is proven
    return found


def test_what_the_guard_starts_is_there_and_blocks_the_release(machine):
    """Guards that are installed keep their words: the module's name, its arguments."""
    machine.program("python", f'exec {sys.executable} "$@"')
    machine.install("2.0")
    machine.run(3, "exit-code")
    machine.run(3, "exit-code")
    machine.start()

    connection = open_state(machine.state / "state.db")
    blocked = Journal(connection).failed(ITSELF)
    connection.close()
    assert "self_update_failed" == blocked["2.0"].code


@pytest.mark.parametrize("result", ["exit-code", "watchdog", "signal", "timeout"])
@pytest.mark.parametrize("ready", [True, False])
def test_a_release_that_fails_twice_is_left_for_the_last_good_one(
    machine, result, ready
):
    """Crash, hang, kill or no readiness: the old one is back before the next start."""
    machine.install("2.0")
    machine.run(3, result, ready=ready)
    assert "2.0" == machine.running
    said = machine.run(3, result, ready=ready).stderr
    assert "1.0" == machine.running
    assert "2.0 is left for 1.0" in said
    assert (
        f"{machine.own}/releases/1.0 condemn {machine.state} 2.0" in machine.condemned
    )


def test_a_release_that_was_up_long_enough_is_good(machine):
    """Later failures are not the trial's; the daemon is restarted as ever."""
    machine.install("2.0")
    machine.run(500, "watchdog")
    for _ in range(5):
        machine.run(1, "exit-code")
    assert "2.0" == machine.running
    assert "" == machine.condemned


def test_a_release_that_installed_the_next_one_is_good_enough_to_return_to(machine):
    """Two updates within the time of one trial: the first has shown that it works."""
    machine.install("2.0")
    machine.run(5)
    machine.install("3.0")
    machine.run(1, "exit-code")
    machine.run(1, "exit-code")
    assert "2.0" == machine.running


def test_one_failure_and_a_recovery_is_no_failure(machine):
    machine.install("2.0")
    machine.run(3, "exit-code")
    machine.run(500)
    machine.run(3, "exit-code")
    assert "2.0" == machine.running


def test_a_power_cut_is_nobodys_failure(machine):
    """No `stopped` comes; the next start has another INVOCATION_ID."""
    machine.install("2.0")
    for _ in range(6):
        machine.start()
    assert "2.0" == machine.running


def test_ends_of_another_start_do_not_count(machine):
    machine.install("2.0")
    machine.start()
    machine.starts += 1
    for _ in range(3):
        machine.call("stopped", "exit-code")
    assert "2.0" == machine.running


def test_a_release_that_keeps_ending_by_itself_is_left_too(machine):
    """Exit 0, again and again, is as useless as a crash; restarts by hand are fewer."""
    machine.install("2.0")
    for _ in range(9):
        machine.run(1)
    assert "2.0" == machine.running
    machine.run(1)
    assert "1.0" == machine.running


def test_the_very_first_self_update_falls_back_to_the_package(tmp_path):
    """Nothing to point `current` at: it is removed, and the bad tree put aside."""
    machine = Machine(tmp_path)
    machine.install("2.0")
    machine.run(1, "exit-code")
    machine.run(1, "exit-code")
    assert machine.running is None
    assert [".condemned-2.0"] == os.listdir(machine.own / "releases")
    assert "/usr/lib/updaterd/site condemn" in machine.condemned


def test_a_verdict_that_could_not_be_written_is_written_at_the_next_start(machine):
    """The journal may be locked, or the disk full, at that moment."""
    machine.python.write_text("#!/bin/sh\nexit 1\n")
    machine.install("2.0")
    machine.run(1, "exit-code")
    machine.run(1, "exit-code")
    assert "1.0" == machine.running
    machine.python.write_text(f'#!/bin/sh\necho "$@" >> {machine.called}\n')
    machine.start()
    assert "condemn" in machine.condemned
    assert "condemned" not in json.loads((machine.state / "guard.json").read_text())


def database(path: Path, layout: int, rows: int):
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (n)")
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(rows)])
    connection.execute(f"PRAGMA user_version = {layout}")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(("layout", "rows"), [(4, 1), (3, 9)])
def test_the_journal_is_put_back_only_if_its_layout_changed(machine, layout, rows):
    """The old release cannot read a newer layout; otherwise nothing is forgotten."""
    path = machine.state / "state.db"
    database(path, 3, 1)
    machine.install("2.0")
    machine.start()
    database(path, layout, 9)  # what the new release did
    machine.call("stopped", "exit-code")
    machine.run(1, "exit-code")
    connection = sqlite3.connect(path)
    (found,) = connection.execute("SELECT count(*) FROM t").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    assert (3, rows) == (version, found)


def restored(machine):
    """What is in the journal's table, and in what the guard kept of the other."""
    connection = sqlite3.connect(machine.state / "state.db")
    names = {row[1] for row in connection.execute("PRAGMA table_info(t)")}
    (count,) = connection.execute("SELECT count(*) FROM t").fetchone()
    connection.close()
    aside = machine.state / "state.db.left-by-2.0"
    return names, count, aside.exists()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE t RENAME COLUMN n TO m",
        "ALTER TABLE t ADD COLUMN more INTEGER NOT NULL DEFAULT 0",
        "DROP TABLE t",
        "CREATE TRIGGER no BEFORE INSERT ON t BEGIN SELECT raise(abort, 'no'); END",
        None,
    ],
)
def test_tables_that_changed_without_a_new_version_are_put_back(machine, change):
    """The good release would fail with them, again and again."""
    path = machine.state / "state.db"
    database(path, 3, 5)
    machine.install("2.0")
    machine.start()
    if change is None:
        path.write_bytes(b"not a database at all")
    else:
        connection = sqlite3.connect(path)
        connection.execute(change)
        connection.commit()
        connection.close()
    machine.call("stopped", "exit-code")
    said = machine.run(1, "exit-code").stderr

    assert ({"n"}, 5, True) == restored(machine)
    assert "its tables had changed" in said


def test_good_release_that_fails_after_the_return_gets_the_old_journal(machine):
    """What is in the tables, not their layout, is what it fails with."""
    path = machine.state / "state.db"
    database(path, 3, 5)
    machine.install("2.0")
    machine.start()
    database(path, 3, 99)
    machine.call("stopped", "exit-code")
    machine.run(1, "exit-code")
    assert ({"n"}, 99, False) == restored(machine)

    machine.run(1, "exit-code")
    said = machine.run(1, "exit-code").stderr

    assert ({"n"}, 5, True) == restored(machine)
    assert "1.0" == machine.running
    assert "the good release fails with what is in it" in said


def test_good_release_that_is_well_after_the_return_keeps_its_journal(machine):
    path = machine.state / "state.db"
    database(path, 3, 5)
    machine.install("2.0")
    for _ in range(2):
        machine.run(1, "exit-code")
    database(path, 3, 7)
    machine.run(500, "exit-code")
    for _ in range(3):
        machine.run(1, "exit-code")

    assert ({"n"}, 7, False) == restored(machine)


def test_what_was_condemned_stays_in_the_note_with_its_seq(machine):
    """The journal may be moved away: the workers read it here (pipeline/itself.py)."""
    listing = machine.own / ".updaterd/manifests/2.0.json"
    listing.parent.mkdir(parents=True)
    listing.write_text('{"seq": 20}')
    machine.install("2.0")
    for _ in range(2):
        machine.run(1, "exit-code")
    (machine.state / "guard.json.state.db").unlink(missing_ok=True)
    machine.run(500)

    found = json.loads((machine.state / "guard.json").read_text())["left"]["2.0"]
    assert 20 == found["seq"]
    assert "failed 2 times" in found["why"]


def test_condemned_release_that_a_person_tries_again_and_is_well_is_forgiven(machine):
    machine.install("2.0")
    for _ in range(2):
        machine.run(1, "exit-code")
    machine.switch("2.0")
    machine.run(500)

    assert {} == json.loads((machine.state / "guard.json").read_text())["left"]


@pytest.mark.parametrize(
    ("systemctl", "result"),
    [
        ("case $1 in is-system-running) echo stopping;; esac", "success"),
        ("case $1 in is-system-running) echo stopping;; esac", "timeout"),
        ("case $1 in list-jobs) echo 7 updaterd.service restart running;; esac",
         "success"),
        ("case $1 in list-jobs) echo 7 updaterd.service stop running;; esac",
         "success"),
    ],
)  # fmt: skip
def test_stop_that_was_ordered_is_nobodys_failure(machine, systemctl, result):
    """Ten reboots, or restarts by a person, within two minutes of the start."""
    machine.program("systemctl", systemctl)
    machine.install("2.0")
    for _ in range(3 if result == "timeout" else 11):
        machine.run(1, result)
    assert "2.0" == machine.running


def test_release_whose_worker_cannot_work_is_left_as_soon_as_it_is_ready(machine):
    """It would run well for ever, and no fix would ever arrive."""
    machine.program("self-test", 'echo "$UPDATERD_RELEASE: no worker" >&2; exit 1')
    machine.install("2.0")
    machine.starts += 1
    machine.call("starting")

    with subprocess.Popen(["/bin/sleep", "60"]) as daemon:
        machine.call("ready", MAINPID=str(daemon.pid))

    assert -15 == daemon.returncode
    said = machine.call("stopped").stderr
    assert "1.0" == machine.running
    assert f"self-test: {machine.own}/releases/2.0: no worker" in said


@pytest.mark.parametrize("script", ["exit 75", "kill -KILL $$", "exit 127"])
def test_self_test_without_an_answer_condemns_nothing(machine, script):
    machine.program("self-test", script)
    machine.install("2.0")
    machine.run(500)
    assert "2.0" == machine.running


def test_only_a_release_on_trial_is_asked(machine):
    machine.program("self-test", "exit 1")
    machine.run(500)
    assert "1.0" == machine.running


def test_current_that_a_person_removed_is_noted_until_it_is_back(machine):
    def aside():
        return json.loads((machine.state / "guard.json").read_text()).get("aside")

    (machine.own / "current").unlink()
    machine.run(1)
    assert aside() is True
    machine.switch("1.0")
    machine.run(1)
    assert aside() is None


def test_each_instance_has_its_own_root_and_unit(tmp_path):
    """By its state directory, which systemd names."""
    code = (
        "import runpy, sys; space = runpy.run_path(sys.argv.pop(1));"
        "made = space['Guard']; at = space['main'].__globals__;"
        "at['Guard'] = lambda *words: at.update(it=made(*words)) or"
        " type('', (), {'starting': lambda _: None})();"
        "space['main'](['guard', 'starting']); print(at['it'].own, at['it'].unit)"
    )
    for name, said in (
        ("updaterd", "/opt/updaterd updaterd.service"),
        ("updaterd-lab", "/opt/updaterd-lab updaterd@lab.service"),
        ("updaterd-a-b", "/opt/updaterd-a-b updaterd@a-b.service"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "guard.json").write_text("{}")
        done = subprocess.run(
            [sys.executable, "-IS", "-c", code, GUARD],
            env={"STATE_DIRECTORY": str(tmp_path / name)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said == done.stdout.strip()


@pytest.mark.parametrize("note", ["", "{", "[]", "null"])
def test_a_damaged_note_never_keeps_the_daemon_from_starting(machine, note):
    (machine.state / "guard.json").write_text(note)
    machine.start()
    machine.run(500)
    assert "1.0" == machine.running


def test_a_machine_that_never_updated_its_updater_has_no_note(tmp_path):
    machine = Machine(tmp_path)
    machine.run(1, "exit-code")
    assert [] == os.listdir(machine.state)


def test_bytecode_of_releases_that_are_gone_is_deleted(machine):
    """Each release has its own in the cache; nobody else would ever delete it."""
    machine.install("2")
    compiled = Path(f"{machine.cache}/pycache{machine.own.resolve()}/releases")
    for version in ("1", "2"):
        (compiled / version / "updaterd").mkdir(parents=True)

    machine.start()

    assert ["2"] == [path.name for path in compiled.iterdir()]
