# SPDX-License-Identifier: Apache-2.0
"""Room: what is here counts, the need is what is written, and no disk is filled."""

import os
import random
import shutil
import signal
import subprocess
from dataclasses import replace

import pytest
from fakes.rig import TIME, Rig
from fakes.tools import need, need_root
from fakes.worker import killed, product_of, update, worker

from updaterd.core.settings import Download
from updaterd.errors import RejectedError, TransientError
from updaterd.install import stage
from updaterd.pipeline import by_hand, recover
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.run import Request
from updaterd.release import publish

MIB = 2**20
SIZE = 3 * MIB


@pytest.fixture
def rig(tmp_path):
    """1.0.0 is installed; 1.1.0 has 3 MiB that no compression makes less."""
    made = Rig(tmp_path)
    made.push("1.0.0")
    made.update()
    made.ballast = {"data/ballast": random.Random(7).randbytes(SIZE)}
    made.push("1.1.0")
    yield made
    made.close()


@pytest.fixture
def disk():
    """Return what puts a folder on a file system of its own."""
    need_root()
    mount = need("mount")
    mounted = []

    def put(folder, size, *options):
        kept = folder.with_name(f"{folder.name}-kept")
        shutil.move(folder, kept)
        folder.mkdir()
        command = [mount, *options] if options else [mount, "-t", "tmpfs", "tmpfs"]
        subprocess.run(
            [*command, "-o", f"size={size}" if not options else "loop", folder],
            check=True,
        )
        mounted.append(folder)
        shutil.copytree(kept, folder, symlinks=True, dirs_exist_ok=True)

    yield put
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(folder, leave):
    """Leave so many bytes on the folder's file system, about."""
    (folder / "ballast").write_bytes(bytes(max(0, free(folder) - leave)))


def cached(rig):
    return sorted(
        p.name for p in (rig.machine.root / "cache").rglob("*") if p.is_file()
    )


def meanwhile(rig, act, pattern="/blobs/"):
    """Do something when a bundle is asked for, before it comes."""

    def answer(handler):
        act()
        handler.file(rig.origin.root / handler.path.lstrip("/"))

    rig.origin.misbehave(pattern, answer)


def interrupted(rig, at):
    """Let the download break off, for good, after so many bytes."""

    def answer(handler):
        if "Range" in handler.headers:
            handler.whole(b"", status=503)
            return
        data = (rig.origin.root / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:at])
        handler.close_connection = True

    rig.origin.misbehave("/blobs/", answer)
    with (
        worker(rig.machine, download=Download(min_free=0)) as services,
        pytest.raises(TransientError),
    ):
        update(rig.machine, services)
    rig.origin.behave()


def test_an_interrupted_download_does_not_block_itself(rig, disk):
    """Root and cache on one file system: "needs 7.6 MiB, there are 7.4", for ever."""
    disk(rig.machine.root, "14m")
    interrupted(rig, 2 * MIB)
    assert any(name.endswith(".part") for name in cached(rig))
    fill(rig.machine.root, SIZE + SIZE - 2 * MIB + MIB // 2)

    with worker(rig.machine, download=Download(min_free=0)) as services:
        assert update(rig.machine, services).result == "installed"


def test_bundles_that_nobody_needs_go_before_room_is_asked_for(rig, disk):
    """Parts of a release that was given up; newer ones waited for their room too."""
    disk(rig.machine.root, "14m")
    left = rig.machine.root / "cache/bundles/acme" / ("0" * 64)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(bytes(SIZE))
    fill(rig.machine.root, SIZE + MIB)

    with worker(rig.machine, download=Download(min_free=0)) as services:
        assert update(rig.machine, services).result == "installed"


def test_the_caches_own_file_system_is_asked_before_the_download(rig, disk):
    (rig.machine.root / "cache").mkdir(exist_ok=True)
    disk(rig.machine.root / "cache", "2m")

    with (
        worker(rig.machine, download=Download(min_free=0)) as services,
        pytest.raises(TransientError) as caught,
    ):
        update(rig.machine, services)

    assert caught.value.code == "disk_full"
    assert "cache" in caught.value.cause
    assert not [path for path in rig.origin.requests[-3:] if "/blobs/" in path]


def test_what_must_stay_free_stays_free_on_the_caches_file_system(rig, disk):
    """Others fill it while the bundle comes: the part gives its room back."""
    cache = rig.machine.root / "cache"
    cache.mkdir(exist_ok=True)
    disk(cache, "12m")
    meanwhile(rig, lambda: fill(cache, 4 * MIB))

    with (
        worker(rig.machine, download=Download(min_free=3 * MIB)) as services,
        pytest.raises(TransientError) as caught,
    ):
        update(rig.machine, services)

    assert caught.value.code == "disk_full"
    assert [name for name in cached(rig) if name != "ballast"] == []
    assert len([path for path in rig.origin.requests if "/blobs/" in path]) == 2
    (cache / "ballast").unlink()
    rig.origin.behave()
    with worker(rig.machine, download=Download(min_free=3 * MIB)) as services:
        assert update(rig.machine, services).result == "installed"


def test_a_part_that_fills_the_disk_to_the_last_byte_does_not_stay(rig, disk):
    cache = rig.machine.root / "cache"
    cache.mkdir(exist_ok=True)
    disk(cache, "12m")
    meanwhile(rig, lambda: fill(cache, MIB))

    with (
        worker(rig.machine, download=Download(min_free=0)) as services,
        pytest.raises(TransientError) as caught,
    ):
        update(rig.machine, services)

    assert caught.value.code == "disk_full"
    assert free(cache) >= MIB


def test_what_must_stay_free_stays_free_while_a_tree_is_built(tmp_path, disk):
    rig = Rig(tmp_path)
    try:
        rig.push("1.0.0")
        rig.update()
        rig.ballast = {f"data/{n}": random.Random(n).randbytes(SIZE) for n in range(3)}
        rig.push("1.1.0")
        disk(rig.machine.app, "30m")
        meanwhile(rig, lambda: fill(rig.machine.app, 11 * MIB))

        with (
            worker(rig.machine, download=Download(min_free=4 * MIB)) as services,
            pytest.raises(TransientError) as caught,
        ):
            update(rig.machine, services)

        assert caught.value.code == "disk_full"
        assert free(rig.machine.app) > 10 * MIB
        assert rig.machine.running == "1.0.0"
    finally:
        rig.close()


def grown(tmp_path, later_s=0):
    """1.0.0 with 3 MiB is installed; 1.1.0 differs from it by a line, and in time."""
    rig = Rig(tmp_path, ballast=random.Random(7).randbytes(SIZE))
    rig.push("1.0.0")
    rig.update()
    rig.push("1.1.0", time=TIME + later_s)
    return rig


@pytest.mark.parametrize(
    ("how", "later_s", "fits"),
    [("hardlink", 0, True), ("hardlink", 60, False), ("copy", 0, False)],
)
def test_what_is_shared_is_not_needed(tmp_path, disk, how, later_s, fits):
    """A delta of some bytes was refused for want of the whole tree's room.

    A hard link has one time: a file that has another in the new release is copied.
    """
    rig = grown(tmp_path, later_s)
    try:
        disk(rig.machine.root, "20m")
        fill(rig.machine.root, SIZE // 2)
        with worker(rig.machine, download=Download(min_free=0)) as services:
            product = replace(product_of(rig.machine), unchanged=how)
            if fits:
                outcome = pipeline.update(product, services, Request())
                assert outcome.result == "installed"
            else:
                with pytest.raises(TransientError, match="needs") as caught:
                    pipeline.update(product, services, Request())
                assert caught.value.code == "disk_full"
    finally:
        rig.close()


def test_what_is_cloned_is_not_needed(tmp_path, disk):
    """Where the file system can, and that is found by trying."""
    need_root()
    mkfs = need("mkfs.xfs")
    rig = grown(tmp_path)
    try:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(320 * MIB)
        subprocess.run([mkfs, "-q", "-m", "reflink=1", image], check=True)
        try:
            disk(rig.machine.root, 0, image)
        except subprocess.CalledProcessError:
            pytest.skip("no loop devices here")
        fill(rig.machine.root, SIZE // 2)
        with worker(rig.machine, download=Download(min_free=0)) as services:
            assert update(rig.machine, services).result == "installed"
    finally:
        rig.close()


@pytest.mark.parametrize("then", ["updated", "paused", "rolled back"])
def test_a_worker_that_dies_before_it_clears_the_cache_leaves_nothing(rig, then):
    """Killed between the tree's commit and the clearing: whoever comes next does."""
    assert killed(rig.machine, "STAGED", leaving=False)
    assert cached(rig)

    with worker(rig.machine) as services:
        if then == "updated":
            assert update(rig.machine, services).result == "installed"
        elif then == "paused":
            repository = rig.publisher.open()
            catalog = publish.catalog_of(rig.publisher.space, repository, "acme")
            catalog.point(replace(catalog.pointer("stable"), paused=True))
            repository.commit()
            assert update(rig.machine, services).code == "paused"
        else:
            recover.recover(product_of(rig.machine), services)

    assert cached(rig) == []


def test_a_worker_that_dies_before_the_tree_has_its_name_keeps_the_bundle(rig):
    """It is needed still: nothing is downloaded twice."""
    assert killed(rig.machine, "STAGING", leaving=False)

    with worker(rig.machine) as services:
        recover.recover(product_of(rig.machine), services)
        assert cached(rig)
        before = len(rig.origin.requests)
        assert update(rig.machine, services).result == "installed"

    assert not [path for path in rig.origin.requests[before:] if "/blobs/" in path]


def test_what_a_killed_worker_downloaded_counts_as_downloaded(rig):
    """ "58.6 % of the full bundle" was said of a whole one."""
    pid = 0

    def answer(handler):
        data = (rig.origin.root / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: 2 * MIB])
        part = rig.machine.root / "cache/bundles/acme"
        while not any(p.stat().st_size > MIB for p in part.glob("*.part")):
            if handler.server.ending.wait(0.01):
                return
        os.kill(pid, signal.SIGKILL)

    rig.origin.misbehave("/blobs/", answer)
    pid = os.fork()
    if not pid:
        try:
            with worker(rig.machine) as services:
                update(rig.machine, services)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    rig.origin.behave()

    with worker(rig.machine) as services:
        outcome = update(rig.machine, services)

    assert outcome.result == "installed"
    # a delta of bytes that have nothing in common is nearly as large
    assert 0.99 * outcome.bytes_full < outcome.bytes_fetched <= outcome.bytes_full


def test_repair_asks_for_room_too(rig, disk):
    with worker(rig.machine) as services:
        assert update(rig.machine, services).result == "installed"
    disk(rig.machine.root, "14m")
    damaged = rig.machine.current / "data/ballast"
    damaged.write_bytes(bytes(SIZE))
    fill(rig.machine.root, MIB)

    with (
        worker(rig.machine, download=Download(min_free=0)) as services,
        pytest.raises((TransientError, RejectedError)) as caught,
    ):
        by_hand.verify(product_of(rig.machine), services, repair=True)

    assert caught.value.code == "disk_full"
    assert list(stage.private(rig.machine.app).glob("stage-*")) == []
