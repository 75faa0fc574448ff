# SPDX-License-Identifier: Apache-2.0
"""Every way in which the cheapest path to a release may fail, and where it leads.

A machine on 1.0.0 is offered 1.2.0. It may take one delta, or two over 1.1.0, or the
full bundle, which 512 KiB that do not compress make the dearest. Repository and
worker are real: processes, signatures, HTTP.
"""

import json
import random
import subprocess
from contextlib import closing
from dataclasses import replace

import pytest
from fakes.origin import body, status
from fakes.rig import Rig
from fakes.tools import need, need_root
from fakes.trees import snapshot
from security import bundles
from security.attacks import manifest_of, sign_manifest

from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

DIRECT, HOPS, FULL = "delta 1.0.0 -> 1.2.0", "2 deltas 1.0.0 -> 1.1.0 -> 1.2.0", "full"
BALLAST = random.Random(3).randbytes(512 << 10)


@pytest.fixture
def rig(tmp_path):
    """1.0.0 is installed, 1.2.0 is offered."""
    made = Rig(tmp_path, ballast=BALLAST)
    made.push("1.0.0")
    assert made.update()[0]["result"] == "installed"
    made.push("1.1.0")
    made.push("1.2.0", deltas=2)
    offer_both(made)
    yield made
    made.close()


def offer_both(rig) -> None:
    """Sign the way over 1.1.0 too, as for machines that are too old for another."""
    first = manifest_of(rig, "1.1.0").deltas
    sign_manifest(rig, deltas=(*manifest_of(rig).deltas, *first))


def edge(rig, start: str, end: str = "1.2.0"):
    """Return the delta from one release to another, as signed."""
    (found,) = (
        delta
        for delta in manifest_of(rig).deltas
        if (delta.from_version, delta.to_version) == (start, end)
    )
    return found


def bytes_of(rig, bundle) -> bytes:
    return rig.publisher.space.blob(bundle.sha256).read_bytes()


def serve(rig, bundle, answer) -> None:
    rig.origin.misbehave(bundle.sha256, answer)


def explained(rig) -> tuple[str, list[str]]:
    """Return the path that `--explain` names, and the others it weighed."""
    outcome, _ = rig.update("--explain")
    return outcome["path"], outcome["alternatives"]


def taken(rig) -> dict:
    """Return the path of the newest deployment: kind, reason, troubles."""
    connection = open_for_reading(rig.machine.root / "state" / "state.db")
    with closing(connection):
        return json.loads(Records(connection).history("acme", limit=1)[0].path)


def failed_steps(rig) -> int:
    """Return how many paths the newest deployments say that failed, step by step."""
    told = rig.machine("history", "--steps").stdout.splitlines()
    steps = [line for line in told if line.startswith("    ")]
    return sum(" failed: " in step or "is damaged" in step for step in steps)


def installs(rig, path: str, troubles: int) -> list[str]:
    """Update in one run; check what was taken and what came of it."""
    before = failed_steps(rig)
    done = rig.machine("update", "acme")
    found = taken(rig)
    assert found["reason"].startswith(path), found
    assert len(found["troubles"]) == troubles, found
    for trouble in found["troubles"]:
        assert trouble in done.stdout, done.stdout
    assert failed_steps(rig) - before == troubles
    tree = rig.folder / "trees" / "1.2.0"
    assert snapshot(rig.machine.current.resolve()) == snapshot(tree)
    return found["troubles"]


def missing(rig, bundle):
    serve(rig, bundle, status(404))


def forbidden(rig, bundle):
    serve(rig, bundle, status(403))


def corrupt(rig, bundle):
    data = bytearray(bytes_of(rig, bundle))
    data[len(data) // 2] ^= 1
    serve(rig, bundle, body(bytes(data)))


def truncated(rig, bundle):
    serve(rig, bundle, body(bytes_of(rig, bundle)[:-7]))


UNSIGNED = [missing, forbidden, corrupt, truncated]


def test_cheapest_path_is_named_and_taken(rig):
    """`--explain` names it, and what it was weighed against."""
    path, others = explained(rig)

    assert path.startswith(DIRECT)
    assert f"full is {manifest_of(rig).full.length} B" in path
    assert [other.split(",")[0] for other in others] == [FULL]
    installs(rig, DIRECT, troubles=0)
    assert rig.update("--explain")[0]["result"] == "current"


@pytest.mark.parametrize("fails", UNSIGNED)
def test_bad_copy_of_a_bundle_leads_to_the_next_path(rig, fails):
    """In the same run: whatever the server has in its place, or has not."""
    fails(rig, edge(rig, "1.0.0"))

    installs(rig, HOPS, troubles=1)


@pytest.mark.parametrize("fails", UNSIGNED)
def test_bad_copies_of_all_deltas_lead_to_the_full_bundle(rig, fails):
    """In the same run, path by path."""
    fails(rig, edge(rig, "1.0.0"))
    fails(rig, edge(rig, "1.1.0"))

    installs(rig, FULL, troubles=2)


@pytest.mark.parametrize(
    ("fails", "code"), [(missing, "http_404"), (corrupt, "hash_mismatch")]
)
def test_no_good_copy_of_anything_is_a_matter_of_time(rig, fails, code):
    """Nothing is refused for good: it installs when the server has been mended."""
    manifest = manifest_of(rig)
    for bundle in (manifest.full, *manifest.deltas):
        fails(rig, bundle)

    done = rig.machine("update", "acme", expect=1)

    assert rig.machine.running == "1.0.0"
    assert "what to do" in done.stderr
    assert rig.machine.product_status()["last_error"]["code"] == code
    rig.origin.behave()
    installs(rig, DIRECT, troubles=0)


def resigned(rig, **changes) -> None:
    """Sign the direct delta anew, changed."""
    direct = edge(rig, "1.0.0")
    others = [each for each in manifest_of(rig).deltas if each != direct]
    sign_manifest(rig, deltas=(replace(direct, **changes), *others))


def as_blob(rig, data: bytes) -> dict:
    return bundles._blob(rig, data)


def newer_format(rig):
    """Return a bundle of the next format, under the name of this one."""
    data = bytearray(bytes_of(rig, edge(rig, "1.0.0")))
    data[4] += 1
    return bytes(data)


HOSTILE = {
    "noise": lambda _: b"UPDR\1D" + bytes(300),
    "newer format": newer_format,
    "a bomb": bundles._delta_bomb,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_signed_but_useless_delta_leads_to_the_next_path(rig, name):
    """What its hash lets through, its content does not."""
    resigned(rig, **as_blob(rig, HOSTILE[name](rig)))

    installs(rig, HOPS, troubles=1)


def test_delta_that_needs_a_newer_updaterd_is_not_even_asked_for(rig):
    """A codec of the future: the planner takes another edge, and says so before."""
    resigned(rig, codec="delta9+xz")
    rig.origin.requests.clear()

    path, others = explained(rig)

    assert path.startswith(HOPS)
    assert [other.split(",")[0] for other in others] == [FULL]
    installs(rig, HOPS, troubles=0)
    direct = edge(rig, "1.0.0")
    assert not [path for path in rig.origin.requests if direct.sha256 in path]


def test_release_that_needs_a_newer_updaterd_waits_for_it(rig):
    """It is refused with what to do, downloads nothing, and is no mark against it."""
    sign_manifest(rig, min_updater="999.0")
    rig.origin.requests.clear()

    for words in ((), ("--explain",)):
        done = rig.machine("update", "acme", *words, expect=None)
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert "1.2.0 needs updaterd 999.0" in said
        assert "update updaterd itself first" in said
        assert "Traceback" not in said

    assert rig.machine.running == "1.0.0"
    assert not [path for path in rig.origin.requests if "blobs" in path]
    rig.heal()
    installs(rig, DIRECT, troubles=0)


@pytest.mark.parametrize("rotten", ["data/table", "data/ballast"])
def test_bit_rot_in_the_old_tree_costs_that_file_alone(rig, rotten):
    """Read by the delta or taken over: it is fetched whole, the rest is not."""
    rot(rig, rotten)

    troubles = installs(rig, DIRECT, troubles=1)

    assert troubles == ["1.0.0 on disk is damaged"]


def rot(rig, path: str) -> None:
    place = rig.machine.current.resolve() / path
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)


def test_server_without_ranges_leads_to_the_full_bundle(rig):
    """Where a damaged file cannot be fetched by itself, all of it is."""
    rot(rig, "data/ballast")
    full = manifest_of(rig).full
    serve(rig, full, body(bytes_of(rig, full)))

    installs(rig, FULL, troubles=3)


def test_bit_rot_before_two_deltas_leads_to_the_full_bundle(rig):
    """What is wrong in a tree that nobody signed for here cannot be fetched."""
    missing(rig, edge(rig, "1.0.0"))
    rot(rig, "data/table")

    installs(rig, FULL, troubles=2)


def test_no_room_for_the_tree_between_two_deltas_leads_to_the_full_bundle(tmp_path):
    """The full bundle needs no such tree: the release installs on a small disk."""
    need_root()
    mount, umount = need("mount"), need("umount")
    rig = Rig(tmp_path, ballast=BALLAST)
    try:
        rig.push("1.0.0")
        assert rig.update()[0]["result"] == "installed"
        rig.push("1.1.0", bulk=6 << 20)  # all the same: nothing to download
        rig.push("1.2.0", deltas=2)
        offer_both(rig)
        missing(rig, edge(rig, "1.0.0"))
        kept = tmp_path / "kept"
        rig.machine.app.rename(kept)
        rig.machine.app.mkdir()
        options = [mount, "-t", "tmpfs", "-o", "size=5m", "small", rig.machine.app]
        subprocess.run(options, check=True)
        try:
            subprocess.run(["cp", "-a", f"{kept}/.", rig.machine.app], check=True)
            (trouble, why) = installs(rig, FULL, troubles=2)
        finally:
            subprocess.run([umount, "-l", rig.machine.app], check=True)
        assert "404" in trouble
        assert "space" in why
    finally:
        rig.close()
