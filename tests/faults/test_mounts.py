# SPDX-License-Identifier: Apache-2.0
"""Other file systems in a tree, trees that cannot be moved, mounts anywhere.

What is mounted is not ours: it is never emptied, changed or moved, and it keeps
nothing else from going on.
"""

import os
import shutil
import subprocess

import pytest
from fakes.releases import clone
from fakes.tools import need, need_root
from fakes.trees import make_tree, snapshot
from fakes.worker import killed, product_of, worker

from updaterd.errors import BrokenError
from updaterd.install import beside, layout, stage
from updaterd.pipeline import by_hand
from updaterd.pipeline import update as pipeline
from updaterd.pipeline.run import Request


@pytest.fixture(scope="module")
def template(releases):
    """A machine at 1.1.0 that came from 1.0.0; 1.2.0 is offered afterwards."""
    machine = releases.machine(releases.root / "machine", product_extra="keep = 2\n")
    machine("update", "acme")
    releases.push("1.1.0")
    machine("update", "acme")
    releases.push("1.2.0")
    clone(machine.root, releases.root / "template")
    return machine


@pytest.fixture
def mount(machine):
    """Return what mounts as mount(8) does; all is unmounted in the end.

    Wherever it is by then: a directory that is renamed takes along what is mounted in
    it.
    """
    need_root()
    tool = need("mount")
    yield lambda *words: subprocess.run([tool, *map(str, words)], check=True)
    for path in reversed(mounts()):
        if path.startswith(f"{machine.root.resolve()}/"):
            subprocess.run(["umount", "-l", path], check=True)


def mounts() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file]


def unmount(path) -> None:
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def volume(tmp_path):
    """Somebody's data, which only they may read."""
    path = tmp_path / "volume"
    (path / "deep" / "er").mkdir(parents=True)
    (path / "deep" / "er" / "customers").write_text("precious")
    (path / "deep").chmod(0o500)
    path.chmod(0o511)
    return path


def untouched(volume) -> bool:
    return ("precious", 0o511, 0o500) == (
        (volume / "deep" / "er" / "customers").read_text(),
        volume.stat().st_mode & 0o777,
        (volume / "deep").stat().st_mode & 0o777,
    )


def mounted(place) -> bool:
    """Whether something is: `os.path.ismount` does not see a bind mount."""
    return str(place.resolve()) in mounts()


def update(machine, **asked):
    with worker(machine) as services:
        return pipeline.update(product_of(machine), services, Request(**asked))


def repair(machine):
    with worker(machine) as services:
        return by_hand.verify(product_of(machine), services, repair=True)


def on_disk(machine) -> list[str]:
    folder = machine.app / "releases"
    return sorted(p.name for p in folder.iterdir() if p.name != stage.PRIVATE)


def runs(releases, machine, version: str) -> bool:
    return (
        snapshot(machine.current) == releases.trees[version]
        and machine.running == version
    )


@pytest.mark.parametrize("where", ["data", "lib/some/where/below", "."])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_volume_in_an_old_release(releases, machine, mount, volume, where, kind):
    """It is neither emptied nor changed; others are pruned, and `status` names it."""
    old = machine.app / "releases" / "1.0.0"
    older = machine.app / "releases" / "0.9.0"
    shutil.copytree(old, older)
    place = old / where
    place.mkdir(parents=True, exist_ok=True)
    if kind == "bind":
        mount("--bind", volume, place)
    else:
        mount("-t", "tmpfs", "none", place)
        shutil.copytree(volume, place, dirs_exist_ok=True)
        volume = place

    assert "installed" == update(machine).result
    assert "current" == update(machine).result

    assert untouched(volume)
    assert mounted(place)
    assert ["1.0.0", "1.1.0", "1.2.0"] == on_disk(machine)
    assert runs(releases, machine, "1.2.0")
    said = machine.status()
    assert str(place.resolve()) in said["products"][0]["in_the_way"][0]
    assert any("another file system is mounted" in what for what in said["problems"])

    unmount(place)
    assert "current" == update(machine).result

    assert ["1.1.0", "1.2.0"] == on_disk(machine)
    assert [] == machine.product_status()["in_the_way"]


def test_file_in_an_old_release_that_something_is_mounted_on(
    releases, machine, mount, volume
):
    place = machine.app / "releases" / "1.0.0" / "lib" / "shared.bin"
    mount("--bind", volume / "deep" / "er" / "customers", place)

    update(machine)

    assert untouched(volume)
    assert (machine.app / "releases" / "1.0.0" / "bin" / "app").exists()
    assert str(place) in machine.product_status()["in_the_way"][0]


def test_volume_in_a_tree_that_was_set_aside(releases, machine, mount, volume):
    trash = machine.app / stage.PRIVATE / "trash-0123"
    (trash / "data").mkdir(parents=True)
    mount("--bind", volume, trash / "data")

    assert "installed" == update(machine).result

    assert untouched(volume)
    assert ["1.1.0", "1.2.0"] == on_disk(machine)
    assert str(trash / "data") in machine.product_status()["in_the_way"][0]


def test_volume_in_a_half_built_tree(releases, machine, mount, volume):
    """Of a run that was killed: the next one that is not built there goes on."""
    staging = machine.app / stage.PRIVATE / "stage-0123"
    (staging / "data").mkdir(parents=True)
    mount("--bind", volume, staging / "data")

    assert "installed" == update(machine).result

    assert untouched(volume)
    assert runs(releases, machine, "1.2.0")
    for _ in range(3):  # each run looks again, and none forgets it
        update(machine)
        found = machine.product_status()["in_the_way"]
        assert any("stage-" in line for line in found), found


def test_volume_in_the_half_built_tree_of_the_same_release(
    releases, machine, mount, volume
):
    assert killed(
        machine, "STAGING", leaving=False,
        act=lambda machine, services: pipeline.update(
            product_of(machine), services, Request()
        ),
    )  # fmt: skip
    with worker(machine) as services:
        view = services.trust().refresh(now=None)
        manifest = view.manifest("acme", "1.2.0", services.platform)
    staging = stage.open_staging(machine.app, manifest.tree)
    (staging / "data").mkdir()
    mount("--bind", volume, staging / "data")

    with pytest.raises(BrokenError) as caught:
        update(machine)

    assert "in_the_way" == caught.value.code
    assert str(staging / "data") in caught.value.cause
    assert untouched(volume)
    assert runs(releases, machine, "1.1.0")
    unmount(staging / "data")
    assert "installed" == update(machine).result


@pytest.mark.parametrize("where", ["data", "lib/shared.bin"])
def test_volume_in_the_release_to_be_repaired(releases, machine, mount, volume, where):
    """Replacing the tree would move the volume: a person is asked to unmount it."""
    (machine.current / "bin" / "app").unlink()
    place = machine.app / "releases" / "1.1.0" / where
    source = volume / "deep" / "er" / "customers"
    if where == "data":
        place.mkdir()
        source = volume
    mount("--bind", source, place)

    with pytest.raises(BrokenError) as caught:
        repair(machine)

    assert "in_the_way" == caught.value.code
    assert str(place) in caught.value.cause
    assert untouched(volume)
    assert mounted(place)
    with worker(machine) as services:
        found = by_hand.verify(product_of(machine), services, repair=False)
    said = [f"{problem.path}: {problem.difference}" for problem in found.problems]
    assert f"{where}: another file system is mounted there" in [*said, *found.notes]

    unmount(place)
    assert repair(machine).repaired
    assert runs(releases, machine, "1.1.0")


def test_volume_in_a_sound_release_is_no_damage(releases, machine, mount, volume):
    """It hides nothing that was signed: one can return to it, and leave it again."""
    places = [
        machine.app / "releases" / version / "data" for version in ("1.0.0", "1.1.0")
    ]
    for place in places:
        place.mkdir()
        mount("--bind", volume, place)

    found = repair(machine)
    assert (False, ()) == (found.repaired, found.problems)
    assert "data: another file system is mounted there" in found.notes
    with worker(machine) as services:
        assert "installed" == by_hand.roll_back(product_of(machine), services).result
    assert "1.0.0" == machine.running
    with worker(machine) as services:
        back = by_hand.roll_back(product_of(machine), services, to="1.1.0")
    assert "installed" == back.result
    assert all(map(mounted, places))
    assert untouched(volume)


@pytest.mark.parametrize("kind", ["link", "mount"])
def test_files_of_others_below_the_cache(machine, mount, volume, kind):
    """Bundles of products that are gone are deleted by their age; these are none."""
    (machine.root / "cache" / "bundles").mkdir(parents=True, exist_ok=True)
    place = machine.root / "cache" / "bundles" / "theirs"
    old = volume / "old"
    old.write_text("precious")
    os.utime(old, (0, 0))
    if kind == "link":
        place.symlink_to(volume)
    else:
        place.mkdir()
        mount("--bind", volume, place)

    assert "installed" == update(machine).result

    assert "precious" == old.read_text()


def test_directory_at_current_that_something_is_mounted_on(
    releases, machine, mount, volume
):
    """It cannot be moved away: a person is told what it is, not of broken disks."""
    machine.current.unlink()
    machine.current.mkdir()
    mount("--bind", volume, machine.current)

    with pytest.raises(BrokenError, match="mounted") as caught:
        repair(machine)

    assert "in_the_way" == caught.value.code
    assert untouched(volume)
    unmount(machine.current)
    repair(machine)
    assert runs(releases, machine, "1.1.0")


@pytest.fixture
def on_btrfs(machine, mount):
    """The root on a file system with subvolumes, and with files that cannot change."""
    need("btrfs", "btrfs-progs")
    image = machine.root / "image"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    make = need("mkfs.btrfs", "btrfs-progs")
    subprocess.run([make, "-q", image], check=True)
    kept = machine.root / "kept"
    machine.app.rename(kept)
    machine.app.mkdir()
    mount("-o", "loop", image, machine.app)
    shutil.copytree(kept, machine.app, symlinks=True, dirs_exist_ok=True)
    return machine


def test_subvolume_in_an_old_release(releases, on_btrfs):
    """Another file system by its device, in the same mount."""
    place = on_btrfs.app / "releases" / "1.0.0" / "data"
    subprocess.run(["btrfs", "-q", "subvolume", "create", place], check=True)
    (place / "customers").write_text("precious")

    assert "installed" == update(on_btrfs).result

    assert "precious" == (place / "customers").read_text()
    assert ["1.0.0", "1.1.0", "1.2.0"] == on_disk(on_btrfs)
    assert str(place) in on_btrfs.product_status()["in_the_way"][0]
    subprocess.run(["btrfs", "-q", "subvolume", "delete", place], check=True)
    assert "current" == update(on_btrfs).result
    assert ["1.1.0", "1.2.0"] == on_disk(on_btrfs)


def test_one_old_release_that_cannot_be_deleted_keeps_no_other(releases, on_btrfs):
    """Made immutable, one itself and one a file of it: each is named, and waits."""
    change = need("chattr", "e2fsprogs")
    folder = on_btrfs.app / "releases"
    for name in ("0.7", "0.8", "0.9"):
        shutil.copytree(folder / "1.0.0", folder / name, symlinks=True)
    subprocess.run([change, "+i", folder / "0.7"], check=True)
    subprocess.run([change, "+i", folder / "0.8" / "bin" / "app"], check=True)

    assert "installed" == update(on_btrfs).result

    assert ["0.7", "1.1.0", "1.2.0"] == on_disk(on_btrfs)
    assert (folder / "0.7" / "bin" / "app").exists()
    found = on_btrfs.product_status()["in_the_way"]
    assert [f"{folder}/0.7: Operation not permitted"] == found[:1]
    (stuck,) = on_btrfs.app.glob(f"{stage.PRIVATE}/trash-*/bin/app")
    assert [f"{stuck}: Operation not permitted"] == found[1:]
    for path in (folder / "0.7", stuck):
        subprocess.run([change, "-i", path], check=True)
    assert "current" == update(on_btrfs).result
    assert ["1.1.0", "1.2.0"] == on_disk(on_btrfs)
    assert ["manifests"] == os.listdir(on_btrfs.app / stage.PRIVATE)
    assert [] == on_btrfs.product_status()["in_the_way"]


@pytest.fixture
def layered(machine, mount):
    """The root in the lower layer of an overlay, as in a container's image."""
    layers = machine.root / "layers"
    for name in ("upper", "work"):
        (layers / name).mkdir(parents=True)
    machine.app.rename(layers / "lower")
    machine.app.mkdir()
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    # unless told otherwise, a directory of the lower layer cannot be renamed
    mount("-t", "overlay", "-o", f"{options},redirect_dir=off", "overlay", machine.app)
    return machine


def test_release_that_cannot_be_renamed_is_deleted_where_it_is(releases, layered):
    for number in range(7):
        old = layered.app / "releases" / "1.0.0"
        shutil.copytree(old, old.with_name(f"0.{number}"))

    assert "installed" == update(layered).result

    assert ["1.1.0", "1.2.0"] == on_disk(layered)
    assert ["manifests"] == os.listdir(layered.app / stage.PRIVATE)
    assert [] == layered.product_status()["in_the_way"]


def test_release_whose_deletion_was_cut_short_is_none_any_more(releases, layered):
    """Marked before the first file goes: nothing returns to it or starts there."""
    layout.mark(layered.app, "1.0.0")
    (layered.app / "releases" / "1.0.0" / "bin" / "app").unlink()

    with worker(layered) as services, pytest.raises(BrokenError) as caught:
        by_hand.roll_back(product_of(layered), services)

    assert "nothing_to_return_to" == caught.value.code
    assert ["1.1.0"] == on_disk(layered)
    assert frozenset() == layout.marked(layered.app)


def test_running_release_that_cannot_be_renamed_is_repaired(releases, layered):
    (layered.current / "bin" / "app").unlink()
    (layered.current / "lib" / "changing.bin").write_bytes(b"damaged")

    found = repair(layered)

    assert found.repaired
    assert runs(releases, layered, "1.1.0")
    assert ["1.0.0", "1.1.0"] == on_disk(layered)
    assert ["manifests"] == os.listdir(layered.app / stage.PRIVATE)
    assert "installed" == update(layered).result


def test_release_of_that_name_that_cannot_be_renamed_gives_way(releases, layered):
    """A damaged tree of a release that does not run is deleted, then built anew."""
    update(layered)
    with worker(layered) as services:
        by_hand.roll_back(product_of(layered), services)
    clone(layered.app, layered.root / "copy")
    unmount(layered.app)
    shutil.rmtree(layered.root / "layers" / "lower")
    (layered.root / "copy").rename(layered.root / "layers" / "lower")
    for name in ("upper", "work"):
        shutil.rmtree(layered.root / "layers" / name)
        (layered.root / "layers" / name).mkdir()
    layers = layered.root / "layers"
    options = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    subprocess.run(
        ["mount", "-t", "overlay", "-o", f"{options},redirect_dir=off", "o",
         layered.app],
        check=True,
    )  # fmt: skip
    (layered.app / "releases" / "1.2.0" / "bin" / "app").unlink()

    assert "installed" == update(layered, retry_blocked=True).result

    assert runs(releases, layered, "1.2.0")


@pytest.mark.parametrize("where", ["releases", stage.PRIVATE])
def test_file_system_mounted_on_one_of_two_folders(releases, machine, mount, where):
    """Trees are built where they can be renamed from: everything works."""
    kept = machine.root / "kept"
    place = machine.app / where
    shutil.copytree(place, kept, symlinks=True)
    mount("-t", "tmpfs", "none", place)
    shutil.copytree(kept, place, symlinks=True, dirs_exist_ok=True)

    assert "installed" == update(machine).result
    assert runs(releases, machine, "1.2.0")
    assert ["1.1.0", "1.2.0"] == on_disk(machine)
    (machine.current / "bin" / "app").unlink()
    assert repair(machine).repaired
    with worker(machine) as services:
        assert "installed" == by_hand.roll_back(product_of(machine), services).result
    assert runs(releases, machine, "1.1.0")
    place = machine.app / "releases" / stage.PRIVATE
    assert ["manifests"] == os.listdir(place)
    assert 0o700 == place.stat().st_mode & 0o777


def test_first_install_below_a_mounted_releases_folder(releases, machine, mount):
    """As docs/reliability.md recommends it: releases on a file system of their own."""
    with worker(machine) as services:
        services.journal.forget_installed("acme")
    shutil.rmtree(machine.app)
    (machine.app / "releases").mkdir(parents=True)
    mount("-t", "tmpfs", "none", machine.app / "releases")

    assert "installed" == update(machine).result

    assert runs(releases, machine, "1.2.0")
    assert not (machine.app / stage.PRIVATE).exists()
    # which was everybody's, as each new tmpfs is
    assert 0o755 == (machine.app / "releases").stat().st_mode & 0o7777


def test_mounted_releases_folder_in_which_another_user_has_put_something(
    releases, machine, mount
):
    """It is everybody's, and not made ours: a planted release would stay his."""
    shutil.rmtree(machine.app)
    (machine.app / "releases").mkdir(parents=True)
    mount("-t", "tmpfs", "none", machine.app / "releases")
    (machine.app / "releases" / "1.2.0").mkdir()
    os.chown(machine.app / "releases" / "1.2.0", 1234, 1234)

    with pytest.raises(BrokenError) as caught:
        update(machine)

    assert "unsafe_root" == caught.value.code
    assert 0o1777 == (machine.app / "releases").stat().st_mode & 0o7777


def adopt(machine):
    """Put an application that others installed where `current` belongs."""
    with worker(machine) as services:
        services.journal.forget_installed("acme")
    kept = machine.root / "theirs"
    shutil.copytree(machine.current, kept, symlinks=True)
    shutil.rmtree(machine.app)
    machine.app.mkdir()
    kept.rename(machine.current)


def test_application_of_others_beside_a_mounted_releases_folder(
    releases, machine, mount
):
    """Taken over where it stands: nothing can be renamed into `releases`."""
    adopt(machine)
    (machine.app / "releases").mkdir()
    mount("-t", "tmpfs", "none", machine.app / "releases")

    assert "installed" == update(machine).result
    assert runs(releases, machine, "1.2.0")

    with worker(machine) as services:
        back = by_hand.roll_back(product_of(machine), services)
    assert ("installed", "unmanaged") == (back.result, back.version)
    assert snapshot(machine.current) == releases.trees["1.1.0"]


def test_directory_at_current_beside_a_mounted_releases_folder(
    releases, machine, mount
):
    kept = machine.root / "kept"
    shutil.copytree(machine.app / "releases", kept, symlinks=True)
    mount("-t", "tmpfs", "none", machine.app / "releases")
    shutil.copytree(kept, machine.app / "releases", symlinks=True, dirs_exist_ok=True)
    machine.current.unlink()
    machine.current.mkdir()
    (machine.current / "by-hand").write_text("precious")

    notes = repair(machine).notes

    assert runs(releases, machine, "1.1.0")
    (kept,) = machine.app.glob(f"{stage.PRIVATE}/kept-*/by-hand")
    assert "precious" == kept.read_text()
    assert str(kept.parent) in notes[0]


def test_twin_of_a_tree_where_no_hard_links_can_be_had(tmp_path, mount, machine):
    """Each file is copied, with its mode and its time: `verify` asks for both."""
    place = machine.root / "elsewhere"
    place.mkdir()
    mount("-t", "tmpfs", "none", place)
    tree = make_tree(place / "tree", {"bin/app": "x", "lib/link": "-> ../bin/app"})
    (tree / "empty").mkdir(mode=0o700)
    for name in ("bin/app", "lib/link"):
        os.utime(tree / name, (1, 1_600_000_000), follow_symlinks=False)
    twin = tmp_path / "twin"
    twin.mkdir()

    beside._copy(tree, twin)

    assert snapshot(tree) == snapshot(twin)
    assert 0o700 == (twin / "empty").stat().st_mode & 0o777
    for name in ("bin/app", "lib/link"):
        assert 1_600_000_000 == (twin / name).lstat().st_mtime


def test_twin_of_a_tree_into_which_another_program_put_a_fifo(tmp_path, mount, machine):
    """Whoever opens it to copy it waits for ever; no release has one."""
    place = machine.root / "elsewhere"
    place.mkdir()
    mount("-t", "tmpfs", "none", place)
    tree = make_tree(place / "tree", {"bin/app": "x"})
    os.mkfifo(tree / "fifo")
    twin = tmp_path / "twin"
    twin.mkdir()

    beside._copy(tree, twin)

    assert ["bin"] == [path.name for path in twin.iterdir()]
