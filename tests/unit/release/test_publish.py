# SPDX-License-Identifier: Apache-2.0
"""Publishing: in an order nothing can break, by several at once, step by step."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.disk import Dying
from fakes.origin import Origin
from fakes.repository import PLATFORM, T0, Client, Publisher, manifest_of

from updaterd import durable
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.release import publish, workspace
from updaterd.release.keychange import change as keychange
from updaterd.release.keychange import delegation
from updaterd.release.repository.releases import KEPT
from updaterd.release.repository.signing import MissingKeysError
from updaterd.release.upkeep import expiry, garbage, verification

pytestmark = pytest.mark.slow


def test_a_publish_that_dies_anywhere_has_published_nothing_or_everything(
    publisher, client, monkeypatch
):
    """Dying before each written file in turn; then the next run finishes it."""
    for step in range(50):
        version = f"2.{step}"
        before = client.offered()
        dying = Dying(step)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "write_file", dying)
            try:
                publisher.release(version)
            except OSError:
                pass
            else:
                assert step == 6, "manifest, pointer, two roles, snapshot, timestamp"
                break
        assert client.offered() == before
        publisher.release(version)
        assert client.offered() == version
    else:
        pytest.fail("never completed")


def test_two_publishers_at_once_lose_neither_release(publisher, client):
    """Ten threads, each its own view of the repository: all releases are there."""

    def push(number):
        with publisher.space.locked():
            publisher.release(f"3.{number}")

    threads = [threading.Thread(target=push, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog = publish.catalog_of(publisher.space, publisher.open(), "acme")
    found = {each.version for each in catalog.listed()}
    assert found == {"1.0.0"} | {f"3.{number}" for number in range(10)}
    assert len({each.seq for each in catalog.listed()}) == 11


def test_a_publisher_without_the_lock_notices_before_the_swap(publisher):
    """On a file system whose locks do nothing, the second one is told to retry."""
    slow = publisher.open()
    publisher.release("1.1.0")
    with slow.edit("acme.releases"):
        pass
    with pytest.raises(TransientError) as caught:
        slow.commit()
    assert caught.value.code == "concurrent_publish"
    catalog = publish.catalog_of(publisher.space, publisher.open(), "acme")
    assert catalog.find("1.1.0") is not None


def test_old_releases_move_to_the_archive_and_stay_installable(publisher, client):
    """The role keeps the newest twenty; an archived one is still found."""
    for number in range(KEPT + 5):
        publisher.release(f"4.{number}")
    role = publisher.open().targets("acme.releases")
    assert len(role.targets) == KEPT
    assert len(publisher.open().targets("acme.archive").targets) == 6
    view = client.refresh()
    assert view.manifest("acme", "1.0.0", PLATFORM).seq == 1
    assert view.manifest("acme", "4.24", PLATFORM).seq == 26


def test_a_partial_rollout_keeps_what_the_other_machines_get(publisher):
    """Under a release for some lies the one for all; it goes when all get it."""
    catalog = publish.catalog_of(publisher.space, publisher.open(), "acme")
    pointer = catalog.pointer("stable")
    some = publish.offer(pointer, "1.1.0", 2, permille=100)
    assert [each.version for each in some.releases] == ["1.1.0", "1.0.0"]
    wider = publish.offer(some, "1.1.0", 2, permille=500)
    assert [each.version for each in wider.releases] == ["1.1.0", "1.0.0"]
    assert wider.releases[0].rollout.salt == some.releases[0].rollout.salt
    everyone = publish.offer(wider, "1.1.0", 2)
    assert [each.version for each in everyone.releases] == ["1.1.0"]


def test_a_yanked_release_is_withdrawn_everywhere(publisher, client):
    """No channel offers it, no role signs it; what was before is offered again."""
    publisher.release("1.1.0")
    repository = publisher.open()
    catalog = publish.catalog_of(publisher.space, repository, "acme")
    changed = publish.yank(catalog, "1.1.0")
    repository.commit()
    assert [pointer.channel for pointer in changed] == ["stable"]
    assert client.offered() == "1.0.0"
    with pytest.raises(RejectedError):
        client.refresh().manifest("acme", "1.1.0", PLATFORM)
    with pytest.raises(BrokenError):
        publish.yank(catalog, "1.1.0")
    assert publisher.release("1.2.0").seq == 3, "a yanked seq is never given again"


def test_a_release_never_changes_and_seq_only_grows(publisher):
    """The same version with other contents, or a lower seq, is refused."""
    repository = publisher.open()
    catalog = publish.catalog_of(publisher.space, repository, "acme")
    with pytest.raises(RejectedError) as caught:
        catalog.add(manifest_of("acme", "1.0.0", 7))
    assert caught.value.code == "release_exists"
    order = publish.Order(product="acme", version="0.9", platform=PLATFORM, seq=1)
    built = manifest_of("acme", "0.9", 1)
    made = publish.Built(files=built.files, full=built.full, deltas=())
    with pytest.raises(RejectedError) as caught:
        publish.enter(catalog, order, made)
    assert caught.value.code == "seq_not_above"
    other = replace(order, version="1.0.0", platform="linux-aarch64", seq=None)
    assert publish.enter(catalog, other, made).manifest.seq == 1


def test_two_pushes_of_one_release_at_once_are_one(publisher):
    """Who comes second finds it published; other contents are still refused."""
    files = manifest_of("acme", "2.0.0", 1).files
    order = publish.Order(product="acme", version="2.0.0", platform=PLATFORM)
    made = publish.Built(
        files=files, full=manifest_of("acme", "2.0.0", 1).full, deltas=()
    )
    repository = publisher.open()
    catalog = publish.catalog_of(publisher.space, repository, "acme")
    assert publish.enter(catalog, order, made).fresh
    assert not publish.enter(catalog, order, made).fresh
    with pytest.raises(RejectedError) as caught:
        publish.enter(catalog, order, replace(made, files=()))
    assert caught.value.code == "release_exists"


def test_pushing_an_old_release_again_does_not_take_machines_back(publisher):
    """That needs `publish`, said on purpose."""
    old = publisher.release("1.1.0")
    publisher.release("1.2.0")
    catalog = publish.catalog_of(publisher.space, publisher.open(), "acme")
    with pytest.raises(RejectedError) as caught:
        publish.check_not_back(catalog.pointer("stable"), old)
    assert caught.value.code == "not_newest"


def test_refresh_signs_what_is_half_through_its_time(publisher, client):
    """Daily the timestamp; a channel after 45 of its 90 days; root when it nears."""
    publisher.now = T0 + timedelta(days=1)
    signed, missing = expiry.refresh(publisher.space, publisher.open(), publisher.now)
    assert (signed, missing) == (["timestamp"], [])
    publisher.now = T0 + timedelta(days=46)
    signed, _ = expiry.refresh(publisher.space, publisher.open(), publisher.now)
    assert set(signed) == {"timestamp", "acme.stable", "acme.beta"}
    publisher.now = T0 + timedelta(days=310)
    repository = publisher.open()
    signed, missing = expiry.refresh(publisher.space, repository, publisher.now)
    assert {"root", "snapshot", "acme.releases", "acme.archive"} <= set(signed)
    assert missing == []
    client.now = publisher.now
    assert client.offered() == "1.0.0"


def test_refresh_says_which_keys_it_misses(publisher):
    """Root keys are offline: the rest is signed, and the person is told."""
    for number in (1, 2, 3):
        (publisher.folder / "keys" / f"root-{number}.pem").unlink()
    publisher.now = T0 + timedelta(days=310)
    repository = publisher.open()
    signed, missing = expiry.refresh(publisher.space, repository, publisher.now)
    assert "timestamp" in signed
    assert any(line.startswith("root ends in 55 days") for line in missing)


@pytest.mark.parametrize("permille", [-1, 1001])
def test_nothing_is_signed_that_every_machine_would_refuse(publisher, permille):
    """A slip in a rollout or a manifest stops here, not at all machines at once."""
    catalog = publish.catalog_of(publisher.space, publisher.open(), "acme")
    bad = publish.offer(catalog.pointer("stable"), "1.0.0", 1, permille=permille)
    with pytest.raises(RejectedError):
        catalog.point(bad)
    with pytest.raises(RejectedError):
        catalog.add(manifest_of("acme", "2.0.0", 2, min_updater="no version!"))


def test_garbage_is_what_nothing_refers_to(publisher):
    """Old editions go, everything that is published or young stays."""
    publisher.release("1.1.0")
    blob = publisher.space.blob("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"left over")
    before = verification.verify(publisher.space, publisher.open(), deep=True)
    assert (
        garbage.collectable(publisher.space, publisher.open(), T0 - timedelta(9999))
        == []
    )
    paths = garbage.collectable(publisher.space, publisher.open(), T0 + timedelta(9999))
    assert blob in paths
    assert not any("root.json" in path.name for path in paths)
    for path in paths:
        path.unlink()
    assert verification.verify(publisher.space, publisher.open(), deep=True) == before


def test_a_critical_product_needs_both_of_its_keys(tmp_path):
    """Threshold 2: with one key gone nothing is published, nothing is lost."""
    publisher = Publisher(tmp_path / "ops", products=())
    change = delegation.product_changes(
        publisher.space, "acme", ["stable"], critical=True
    )
    keychange.propose(publisher.space, publisher.open(), change)
    publisher.release("1.0.0")
    made = publisher.open().roles["acme.releases"]
    assert len(made.signatures) == 2
    with Origin(publisher.public) as origin:
        client = Client(tmp_path / "trust", publisher.bootstrap, origin)
        assert client.offered() == "1.0.0"
        stolen = publisher.folder / "keys" / "release-acme-2.pem"
        stolen.rename(tmp_path / "elsewhere.pem")
        publisher.space = workspace.Workspace(publisher.folder)
        with pytest.raises(MissingKeysError):
            publisher.release("6.6.6")
        assert client.offered() == "1.0.0"
        client.close()


def test_one_signature_of_two_is_refused_by_machines(tmp_path):
    """The thief of one key of a critical product signs: nobody believes it."""
    publisher = Publisher(tmp_path / "ops", critical=("acme",))
    publisher.release("1.0.0")
    with Origin(publisher.public) as origin:
        client = Client(tmp_path / "trust", publisher.bootstrap, origin)
        assert client.offered() == "1.0.0"
        publisher.release("6.6.6")
        role = publisher.open().roles["acme.releases"]
        path = publisher.metadata / f"{role.signed.version}.acme.releases.json"
        role.signatures.popitem()
        path.write_bytes(role.to_bytes())
        view = client.refresh()
        with pytest.raises(TransientError) as caught:
            view.manifest("acme", "6.6.6", PLATFORM)
        assert caught.value.code == "metadata_forged"
        client.close()
