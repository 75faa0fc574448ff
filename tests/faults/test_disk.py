# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, read-only, damaged or tampered with; clocks that jump."""

import os
import shutil
import sqlite3
import subprocess
import time
from dataclasses import replace

import pytest
from fakes.tools import need, need_root
from fakes.trees import snapshot
from fakes.worker import killed, product_of, update, worker

from updaterd.core import manifest as manifests
from updaterd.core.lifecycle import State
from updaterd.core.settings import Download
from updaterd.core.words import Speakers
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.install import stage
from updaterd.pipeline import by_hand
from updaterd.store.journal import Journal, Release
from updaterd.store.schema import open_state

FULL = 0
"""Bytes to leave on the small disk: none."""


def runs(releases, machine, version: str) -> bool:
    return (
        snapshot(machine.current) == releases.trees[version]
        and machine.running == version
    )


def code_of(act, *arguments) -> str:
    """Return the code of the error that a call ends with; nothing if it does not."""
    try:
        act(*arguments)
    except TransientError as error:
        return error.code
    return ""


@pytest.fixture
def small_disk(machine):
    """Put the whole machine on a tmpfs of 8 MiB; return what fills it."""
    need_root()
    mount = need("mount")
    kept = machine.root.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    machine.root.rename(kept)
    machine.root.mkdir()
    subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m,nr_inodes=600", "small", machine.root],
        check=True,
    )
    shutil.copytree(kept, machine.root, symlinks=True, dirs_exist_ok=True)

    def fill(leave: int) -> None:
        found = os.statvfs(machine.root)
        size = found.f_bavail * found.f_frsize - leave
        (machine.root / "ballast").write_bytes(bytes(max(0, size)))

    yield fill
    subprocess.run(["umount", "-l", str(machine.root)], check=True)
    machine.root.rmdir()


@pytest.mark.parametrize(
    "state", ["QUEUED", "PLANNED", "FETCHING", "STAGING", "STAGED", "ACTIVATING"]
)
def test_disk_full_from_each_state_on(releases, machine, small_disk, state):
    """The old release runs whole; with room again, the update ends well."""
    assert killed(machine, state, leaving=False)
    small_disk(FULL)

    with worker(machine, download=Download(min_free=0)) as services:
        code = code_of(update, machine, services)
        assert code in ("", "disk_full", "cache_full", "journal_refused")
        assert any(runs(releases, machine, v) for v in ("1.0.0", "1.1.0"))

    (machine.root / "ballast").unlink()
    with worker(machine, download=Download(min_free=0)) as services:
        assert update(machine, services, forced=True).result in ("installed", "current")
    assert runs(releases, machine, "1.1.0")


def test_too_little_room_is_found_before_anything_is_written(
    releases, machine, small_disk
):
    with worker(machine, download=Download(min_free=2**40)) as services:
        with pytest.raises(TransientError, match="must stay free") as caught:
            update(machine, services)

        assert "disk_full" == caught.value.code
        assert services.journal.product("acme").next_attempt_at > time.time()
        assert not list((machine.root / "cache").rglob("*.part"))
    assert runs(releases, machine, "1.0.0")


def test_too_few_inodes_are_found_before_anything_is_written(
    releases, machine, small_disk
):
    for number in range(2000):
        try:
            (machine.root / f"inode-{number}").touch()
        except OSError:
            break
    for number in range(30):
        (machine.root / f"inode-{number}").unlink()

    with (
        worker(machine, download=Download(min_free=0)) as services,
        pytest.raises(TransientError) as caught,
    ):
        update(machine, services)

    assert "no_inodes" == caught.value.code
    assert runs(releases, machine, "1.0.0")


def test_read_only_root_is_told_and_healed_by_remounting(releases, machine):
    need_root()
    mount = need("mount")
    app = str(machine.app)
    subprocess.run([mount, "--bind", app, app], check=True)
    try:
        subprocess.run([mount, "-o", "remount,ro,bind", app], check=True)
        with worker(machine) as services:
            with pytest.raises(BrokenError, match="Read-only") as caught:
                update(machine, services)
            assert "not_writable" == caught.value.code
        assert runs(releases, machine, "1.0.0")

        subprocess.run([mount, "-o", "remount,rw,bind", app], check=True)
        with worker(machine) as services:
            assert "installed" == update(machine, services).result
    finally:
        subprocess.run(["umount", app], check=True)


def test_private_directory_of_another_user_is_not_used(releases, machine):
    """What is built in there could be changed after it was verified."""
    need_root()
    os.chown(machine.app / stage.PRIVATE, 12345, 12345)

    with (
        worker(machine) as services,
        pytest.raises(BrokenError, match="belongs to user 12345") as caught,
    ):
        update(machine, services)

    assert "unsafe_root" == caught.value.code
    assert runs(releases, machine, "1.0.0")


def test_open_private_directory_is_not_used_until_a_person_closed_it(releases, machine):
    """What others may have put there by now would stay theirs."""
    private = machine.app / stage.PRIVATE
    private.chmod(0o777)
    with worker(machine) as services:
        with pytest.raises(BrokenError, match="every user may write") as caught:
            update(machine, services)
        assert "unsafe_root" == caught.value.code
        assert runs(releases, machine, "1.0.0")

        private.chmod(0o755)
        assert "installed" == update(machine, services).result

    assert 0o700 == private.stat().st_mode & 0o777


def replace_by_directory(releases, machine):
    machine.current.unlink()
    shutil.copytree(releases.folders["1.0.0"], machine.current, symlinks=True)
    (machine.current / "by-hand").write_text("precious")


def test_directory_at_current_is_left_alone_until_a_person_says(releases, machine):
    replace_by_directory(releases, machine)

    with worker(machine) as services:
        with pytest.raises(BrokenError, match="directory or a file") as caught:
            update(machine, services)
        assert "verify acme --repair" in caught.value.do
        assert "precious" == (machine.current / "by-hand").read_text()

        found = by_hand.verify(product_of(machine), services, repair=True)

        assert runs(releases, machine, "1.0.0")
        kept = list(machine.app.glob(".updaterd/kept-*/by-hand"))
        assert "precious" == kept[0].read_text()
        assert str(kept[0].parent) in found.notes[0]
        assert "installed" == update(machine, services).result


def test_missing_current_is_put_back(releases, machine):
    machine.current.unlink()

    with worker(machine) as services:
        outcome = update(machine, services)

    assert any("was gone" in note for note in outcome.notes)
    assert runs(releases, machine, "1.1.0")


def test_release_deleted_by_hand_is_fetched_anew_when_a_person_says(releases, machine):
    """It may be on a disk that is not mounted yet."""
    shutil.rmtree(machine.app / "releases" / "1.0.0")

    with worker(machine) as services:
        assert "tree_gone" == code_of(update, machine, services)
        asked = update(machine, services, retry_blocked=True)
        assert "installed" == asked.result

    assert runs(releases, machine, "1.1.0")


def test_damaged_base_costs_only_what_depends_on_it(releases, machine):
    """The delta's missing files come out of the full bundle, in the same run."""
    target = machine.current / "lib" / "changing.bin"
    target.unlink()
    target.write_bytes(b"damaged")

    with worker(machine) as services:
        assert "installed" == update(machine, services).result
        (row, *_) = services.journal.history("acme")

    assert "damaged" in row.path
    assert runs(releases, machine, "1.1.0")


@pytest.mark.parametrize("damage", ["garbage", "newer"])
def test_state_lost_is_rebuilt_from_the_disk_and_told(releases, machine, damage):
    """A damaged or newer database: installed stays installed, the floor stays."""
    releases_floor = 1
    path = machine.root / "state" / "state.db"
    if damage == "garbage":
        path.write_bytes(b"not a database" * 999)
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 999")
        connection.execute("UPDATE meta SET value = 999 WHERE name = 'readable_from'")
        connection.commit()
        connection.close()

    said = machine("update", "acme", "--explain", expect=10)
    assert "set-aside" in said.stderr
    machine("update", "acme")

    assert runs(releases, machine, "1.1.0")
    with worker(machine) as services:
        assert "1.1.0" == services.journal.installed("acme").version
        assert services.journal.floor("acme") < releases_floor
        (row, *_) = services.journal.history("acme")
        assert ("1.0.0", "1.1.0") == (row.from_version, row.version)


def test_lost_trust_cache_is_fetched_again(releases, machine):
    shutil.rmtree(machine.root / "state" / "trust")

    with worker(machine) as services:
        assert "installed" == update(machine, services).result


def test_lost_cache_directory_costs_only_the_download(releases, machine):
    assert killed(machine, "STAGING", leaving=False)
    shutil.rmtree(machine.root / "cache")

    with worker(machine) as services:
        assert "installed" == update(machine, services).result
    assert runs(releases, machine, "1.1.0")


@pytest.mark.parametrize("years", [-20, 20])
def test_clock_jumps_change_what_is_accepted_never_what_runs(releases, machine, years):
    """Set to another decade, in the middle: the machine keeps running and recovers."""
    assert killed(machine, "STAGED", leaving=False)

    def wrong() -> float:
        return time.time() + years * 365.25 * 86400

    with worker(machine, clock=wrong) as services:
        assert code_of(update, machine, services) in ("", "metadata_expired")
    assert any(runs(releases, machine, v) for v in ("1.0.0", "1.1.0"))

    with worker(machine) as services:
        outcome = update(machine, services, forced=True)
        assert outcome.result in ("installed", "current")
    assert runs(releases, machine, "1.1.0")


def test_roll_back_never_goes_below_the_floor(releases, machine):
    with worker(machine) as services:
        update(machine, services)
        services.journal.hear_from_disk("acme", 2)

        with pytest.raises(RejectedError) as caught:
            by_hand.roll_back(product_of(machine), services)

    assert "below_floor" == caught.value.code
    assert runs(releases, machine, "1.1.0")


def test_roll_back_works_without_network_clock_or_metadata(releases, machine):
    """Instant and offline, and what was left does not come back by itself."""
    with worker(machine) as services:
        update(machine, services)
    shutil.rmtree(machine.root / "state" / "trust")

    def offline():
        raise AssertionError("asked the network")

    with worker(machine, trust=offline, clock=lambda: 1.0) as services:
        outcome = by_hand.roll_back(product_of(machine), services)
        assert "rolled_back_by_hand" == outcome.code
    assert runs(releases, machine, "1.0.0")

    with worker(machine) as services:
        assert "blocked" == update(machine, services).result
        again = update(machine, services, retry_blocked=True)
        assert "installed" == again.result


def test_roll_back_refuses_a_damaged_release(releases, machine):
    with worker(machine) as services:
        update(machine, services)
        (machine.app / "releases" / "1.0.0" / "bin" / "app").unlink()

        with pytest.raises(BrokenError, match="damaged"):
            by_hand.roll_back(product_of(machine), services)

        assert State.INSTALLED is services.journal.history("acme")[0].state
    assert runs(releases, machine, "1.1.0")


def test_hold_stops_even_a_forced_update(releases, machine):
    with worker(machine) as services:
        services.journal.hold("acme", reason="stocktaking")

        outcome = update(machine, services, forced=True)

        assert ("held", "1.1.0 waits: updates are on hold: stocktaking") == (
            outcome.result, outcome.reason,
        )  # fmt: skip
        services.journal.unhold("acme")
        assert "installed" == update(machine, services).result


def test_replayed_metadata_is_refused_though_the_cache_was_lost(releases, machine):
    """The journal remembers what was accepted, apart from the cache."""
    with worker(machine) as services:
        update(machine, services)
        here = services.journal.product("acme").repository
        (said,) = (
            word
            for word in services.journal.words("acme", repository=here)
            if word.role == "acme.stable"
        )
        services.journal.hear(
            "acme",
            [replace(said, version=10_000)],
            {"acme.stable": Speakers(keys=said.keys, threshold=1)},
            repository=here,
            root_version=1,
        )
    shutil.rmtree(machine.root / "state" / "trust")

    with worker(machine) as services:
        outcome = update(machine, services)

    assert ("refused", "metadata_rollback") == (outcome.result, outcome.code)


def test_window_keeps_an_update_waiting_and_now_overrides_it(releases, machine):
    with worker(machine) as services:
        closed = replace(services.schedule, window="Mon 03:00-03:01 UTC")
        shut = replace(services, schedule=closed)
        outcome = update(machine, shut)
        if outcome.result == "installed":  # the one minute of the week
            pytest.skip("the window is open right now")

        assert ("pending", "outside_window") == (outcome.result, outcome.code)
        planned = services.journal.product("acme").next_attempt_at
        assert outcome.next_attempt_at == planned
        assert "installed" == update(machine, shut, forced=True).result


def test_partial_download_is_continued_by_range(releases, machine):
    """Half of the bundle is here, from long ago: only the other half is asked for."""
    with worker(machine) as services:
        view = services.trust().refresh(now=None)
        manifest = view.manifest("acme", "1.1.0", services.platform)
    (delta,) = manifest.deltas
    assert delta.length < manifest.full.length
    name = manifest.full.sha256
    blob = releases.site.public / "blobs" / "sha256" / name[:2] / name
    folder = machine.root / "cache" / "bundles" / "acme"
    folder.mkdir(parents=True, exist_ok=True)
    half = blob.read_bytes()[: manifest.full.length // 2]
    (folder / f"{name}.part").write_bytes(half)
    os.utime(folder / f"{name}.part", (0, 0))
    shutil.rmtree(machine.app / "releases" / "1.0.0")  # so that no delta applies

    with worker(machine) as services:
        assert "installed" == update(machine, services, retry_blocked=True).result
        (row, *_) = services.journal.history("acme")

    assert row.bytes_fetched <= manifest.full.length - len(half) + 1024
    assert runs(releases, machine, "1.1.0")


def test_cache_keeps_nothing_of_releases_that_are_done(releases, machine):
    """Passed over by a newer one, or installed: its bundles are gone."""
    folder = machine.root / "cache" / "bundles"
    (folder / "acme").mkdir(parents=True, exist_ok=True)
    for left in ("0" * 64, f"{'0' * 64}.part", f"{'0' * 64}.part.json"):
        (folder / "acme" / left).write_bytes(b"of a release that was passed over")
    (folder / ("1" * 64)).write_bytes(b"of an updaterd without folders for products")
    (folder / "other").mkdir()
    (folder / "other" / "1").write_bytes(b"of another product, under way perhaps")
    (folder / "other" / "2").write_bytes(b"of another product, that is no more")
    os.utime(folder / "other" / "2", (0, 0))

    with worker(machine) as services:
        assert "installed" == update(machine, services).result

    assert ["1"] == [path.name for path in folder.glob("*/*")]
    assert {"acme", "other"} == {path.name for path in folder.iterdir()}
    assert runs(releases, machine, "1.1.0")


def test_application_of_others_is_taken_over_without_a_download(
    releases, template, tmp_path
):
    """Its files are the release's: nothing is fetched, and roll back returns to it."""
    assert "1.1.0" in releases.folders, template
    fresh = releases.machine(tmp_path / "fresh")
    shutil.copytree(releases.folders["1.1.0"], fresh.current, symlinks=True)
    (fresh.current / "theirs").write_text("a local file")

    with worker(fresh) as services:
        outcome = update(fresh, services)
        assert ("installed", "unmanaged") == (outcome.result, outcome.from_version)
        assert 0 == outcome.bytes_fetched
        assert runs(releases, fresh, "1.1.0")

        by_hand.roll_back(product_of(fresh), services)

    assert "a local file" == (fresh.current / "theirs").read_text()


def test_repair_fetches_only_what_is_nowhere_on_this_disk(releases, machine):
    """A small file of a release is gone; the large one is not fetched again."""
    with worker(machine) as services:
        (machine.current / "only-in-1.0.0").unlink()
        (machine.current / "bin" / "app").write_bytes(b"damaged")

        raw = stage.manifest_path(machine.app, "1.0.0").read_bytes()
        length = manifests.parse(raw).full.length

        found = by_hand.verify(product_of(machine), services, repair=True)

        paths = {problem.path for problem in found.problems}
        assert {"only-in-1.0.0", "bin/app"} == paths
        assert found.repaired
        # the beginning of the bundle and the frames that hold the two: here all of
        # it, but nothing twice and nothing beyond
        assert found.bytes_fetched <= length
        assert (
            () == by_hand.verify(product_of(machine), services, repair=False).problems
        )
    assert runs(releases, machine, "1.0.0")


def test_the_same_tree_under_another_label_is_not_downloaded(releases, machine):
    """Its bytes are on disk already, whatever the release was called."""
    with worker(machine) as services:
        update(machine, services)
    releases.site.push(releases.folders["1.1.0"], "1.1.1", announce=False)

    with worker(machine) as services:
        outcome = update(machine, services)

    assert ("installed", "1.1.1", 0) == (
        outcome.result, outcome.version, outcome.bytes_fetched,
    )  # fmt: skip


@pytest.fixture
def small_state(machine):
    """Move the state directory to a file system of its own; return how to remount."""
    need_root()
    mount = need("mount")
    state, kept = machine.root / "state", machine.root / "kept"
    state.rename(kept)
    state.mkdir()
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "small", state], check=True)
    shutil.copytree(kept, state, symlinks=True, dirs_exist_ok=True)

    def remount(option: str) -> None:
        subprocess.run([mount, "-o", f"remount,{option}", state], check=True)

    yield remount
    subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.parametrize("crashed", [False, True], ids=["settled", "with a log"])
def test_status_and_history_answer_from_a_read_only_disk(
    releases, machine, small_state, crashed
):
    """When a disk error has made it so, a person wants to know how things stand."""
    state = machine.root / "state"
    if crashed:  # what is committed stands in the log, as after a power cut
        held = open_state(state / "state.db")
        Journal(held).hold("acme", reason="fair week")
        copies = {p.name: p.read_bytes() for p in state.glob("state.db*")}
        held.close()
        for name in ("state.db", "state.db-wal"):
            (state / name).write_bytes(copies[name])
    small_state("ro")

    (product,) = machine.status()["products"]

    assert "1.0.0" == product["installed"]["version"]
    assert crashed == (product["hold"] is not None)
    assert "1.0.0" in machine("history").stdout
    said = machine("hold", "acme", expect=1).stderr
    assert "mount its file system writable" in said


def test_disk_too_full_for_a_first_database_is_said_to_be_full(machine, small_state):
    for path in (machine.root / "state").glob("state.db*"):
        path.unlink()
    small_state("size=300k")
    (machine.root / "state" / "ballast").write_bytes(b"")
    with (machine.root / "state" / "ballast").open("wb") as file:
        found = os.statvfs(machine.root / "state")
        file.write(bytes(found.f_bavail * found.f_frsize - 40_960))

    said = machine("update", "acme", expect=1).stderr

    assert "full" in said
    assert "free disk space" in said


@pytest.mark.parametrize("is_damaged", [True, False])
def test_what_runs_is_not_what_was_signed_as_its_label(releases, machine, is_damaged):
    """Damage is repaired; a label that two trees bear is the publisher's to mend."""
    with worker(machine) as services:
        update(machine, services)
        installed = services.journal.installed("acme")
        tree = installed.tree if is_damaged else "f" * 64
        label = Release(installed.version, 0, tree)  # signed with a higher seq since
        services.journal.record_installed("acme", label, "", now=time.time())
        listed = next(path for path in machine.current.rglob("*") if path.is_file())
        listed.write_bytes(b"other bytes")

        with pytest.raises(RejectedError) as caught:
            update(machine, services)

    assert "label_in_use" == caught.value.code
    assert is_damaged == ("--repair" in caught.value.do)
    assert is_damaged != ("publish it" in caught.value.do)
