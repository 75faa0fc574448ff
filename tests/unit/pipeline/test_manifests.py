# SPDX-License-Identifier: Apache-2.0
"""A manifest is made of what changed, and counts only with the hash that was signed."""

import hashlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.origin import Origin, status
from fakes.repository import Client, Publisher, manifest_of

from updaterd import durable
from updaterd.core.forms import Form
from updaterd.core.manifest import Delta, File, tree_id
from updaterd.errors import TransientError
from updaterd.install import layout, stage
from updaterd.pipeline import manifests
from updaterd.release import publish
from updaterd.release.bundles.full import build_full
from updaterd.release.channels.manifests import carried
from updaterd.store.journal import Journal, Release
from updaterd.store.schema import open_state
from updaterd.trust.client import TrustClient

NAMES = [f"lib/package{n // 20:02}/module_{n:04}.py" for n in range(400)]


def tree(version: str, changed: range = range(0)):
    return tuple(
        File(
            name,
            hashlib.sha256(f"{name}{version * (n in changed)}".encode()).hexdigest(),
            7,
            0o644,
        )
        for n, name in enumerate(NAMES)
    )


class Scene:
    """A repository with two large releases, and one machine's carrier and client."""

    def __init__(self, folder: Path):
        self.publisher = Publisher(folder / "ops")
        self.origin = Origin(self.publisher.public)
        self.root = folder / "app"
        self.connection = open_state(folder / "state.db")
        self.journal = Journal(self.connection)
        self.client = Client(folder / "trust", self.publisher.bootstrap, self.origin)
        self.carrier = manifests.Carrier(
            journal=self.journal,
            roots={"acme": self.root},
            fetcher=self.client.fetcher,
            bases=(self.origin.url,),
        )
        self.first = self.push("1.0.0", tree("1"))

    def close(self):
        self.client.close()
        self.connection.close()
        self.origin.__exit__()

    def push(self, version, files, *, before=None, forms=carried):
        """Publish a release that a channel offers, with forms as push makes them."""
        full = replace(manifest_of("acme", version, 1).full, unpacked=7 * len(files))
        deltas = ()
        if before is not None:
            deltas = (
                Delta(
                    from_version=before.version,
                    from_tree=before.tree,
                    to_version=version,
                    to_tree=tree_id(files),
                    sha256="d" * 64,
                    length=9,
                    codec="delta1",
                    memory=1,
                ),
            )
        manifest = self.publisher.release(
            version, channel=None, files=files, full=full, deltas=deltas
        )
        with self.publisher.space.locked():
            repository = self.publisher.open()
            catalog = publish.catalog_of(self.publisher.space, repository, "acme")
            pointer = publish.offer(catalog.pointer("stable"), version, manifest.seq)
            catalog.point(forms(self.publisher.space, catalog, pointer))
            repository.commit()
        return manifest

    def second(self, **more):
        return self.push("1.1.0", tree("2", range(100, 110)), before=self.first, **more)

    def install(self, manifest):
        """Keep a manifest as the worker does when its release is on disk."""
        (self.root / "releases").mkdir(parents=True, exist_ok=True)
        digest = manifests.keep(self.root, manifest.version, manifest.encode())
        release = Release(manifest.version, manifest.seq, manifest.tree)
        self.journal.remember_release("acme", release, digest)

    def read(self, version, *, carrier="own"):
        """Return the manifest as a machine gets it."""
        view = self.view(carrier=carrier)
        self.origin.requests.clear()
        self.origin.headers_seen.clear()
        self.origin.sent = 0
        return view.manifest("acme", version, "linux-x86_64")

    def view(self, *, carrier="own"):
        """Return the repository as a machine sees it."""
        view = TrustClient(
            cache=self.client.cache,
            bootstrap=self.publisher.bootstrap,
            repository=self.origin.url,
            fetcher=self.client.fetcher,
            demo=True,
            carrier=self.carrier if carrier == "own" else carrier,
        ).refresh(now=self.client.now)
        view.channel("acme", "stable")
        return view

    @property
    def plainly(self):
        """Whether the manifest was fetched as it is."""
        return any("/releases/" in path for path in self.origin.requests)


@pytest.fixture
def scene(tmp_path):
    with closing(Scene(tmp_path)) as scene:
        yield scene


def test_the_first_manifest_comes_packed(scene):
    assert scene.first == scene.read("1.0.0")
    assert not scene.plainly
    assert scene.origin.sent < len(scene.first.encode()) / 3


def test_the_next_manifest_is_what_changed_against_the_one_that_is_here(scene):
    second = scene.second()
    scene.install(scene.first)
    assert second == scene.read("1.1.0")
    assert not scene.plainly
    # ten hashes of 32 bytes, and little more: the role that lists it comes, too
    assert scene.origin.sent < 5000
    assert [] == list((scene.client.cache / "forms").glob("*"))


def test_a_manifest_that_is_kept_beside_a_release_is_not_fetched(scene):
    scene.install(scene.first)
    assert scene.first == scene.read("1.0.0")
    assert not [path for path in scene.origin.requests if "metadata" not in path]


def test_a_kept_manifest_that_was_altered_is_no_base(scene):
    second = scene.second()
    scene.install(scene.first)
    path = scene.carrier.held(hashlib.sha256(scene.first.encode()).hexdigest())
    path.write_bytes(path.read_bytes().replace(b"package07", b"package70"))
    assert second == scene.read("1.1.0")
    assert not scene.plainly
    assert manifests.whole(scene.journal, Product(scene.root), "1.0.0") is None


@pytest.mark.parametrize("altered", [False, True])
def test_a_manifest_is_written_once_and_as_signed(scene, tmp_path, altered):
    """What was made in the cache gets a second name; what is not right is replaced."""
    second = scene.second()
    view = scene.view()
    signed = view.signed("acme", "1.1.0", "linux-x86_64")
    raw = second.encode()
    staging = layout.private(scene.root) / "stage-x"
    for folder in (staging, scene.root / "releases", staging.parent / "manifests"):
        folder.mkdir(parents=True, exist_ok=True)
    listing = stage.listing_path(scene.root, "1.1.0")

    signed.lend(listing)
    (cached,) = (scene.client.cache / "manifests").iterdir()
    assert listing.samefile(cached)
    assert [listing] == list(listing.parent.iterdir())
    if altered:
        listing.unlink()
        listing.write_bytes(raw.replace(b"package07", b"package70"))
    stage.commit(staging, scene.root, "1.1.0", raw)

    assert listing.read_bytes() == raw
    assert listing.samefile(cached) is not altered
    signed.release()
    assert not cached.exists()
    signed.lend(listing)  # nothing to lend any more
    assert listing.read_bytes() == raw


class Product:
    def __init__(self, root):
        self.name, self.root = "acme", str(root)


def test_without_its_forms_a_manifest_comes_as_it_is(scene):
    """A mirror without them, and a machine that knows nothing of them."""
    second = scene.second()
    scene.origin.misbehave("/blobs/", status(404))
    assert second == scene.read("1.1.0")
    assert scene.plainly


def test_an_older_updaterd_reads_the_repository_as_ever(scene):
    """What it does not know stands beside all that it needs, and binds nothing."""
    second = scene.second()
    pointer = publish.catalog_of(
        scene.publisher.space, scene.publisher.open(), "acme"
    ).pointer("stable")
    document = pointer.as_custom()
    known = {"schema", "product", "channel", "paused", "floor_seq", "releases"}
    assert {"manifests"} == set(document) - known
    assert 1 == document["schema"]
    assert second == scene.read("1.1.0", carrier=None)
    assert scene.plainly


def test_an_older_repository_is_read_as_ever(scene):
    second = scene.second(forms=lambda _, __, pointer: pointer)
    scene.install(scene.first)
    assert second == scene.read("1.1.0")
    assert scene.plainly


@pytest.mark.parametrize("kind", ["other bytes", "a bomb", "no bundle", "a short one"])
def test_a_form_that_a_stolen_channel_key_signed_makes_no_other_manifest(
    scene, tmp_path, kind
):
    """It is opened in the cage, bounded by what the release key signed."""

    def hostile(space, catalog, pointer):
        folder = tmp_path / "evil"
        folder.mkdir()
        data = {
            "other bytes": scene.first.encode().replace(b"lib/", b"bin/"),
            "a bomb": bytes(1 << 20),
            "no bundle": b"",
            "a short one": b"{}",
        }[kind]
        (folder / "manifest").write_bytes(data)
        listed = File("manifest", hashlib.sha256(data).hexdigest(), len(data), 0o644)
        full = build_full(folder, (listed,), tmp_path / "blob")
        if kind == "no bundle":
            (tmp_path / "blob").write_bytes(b"UPDR\x01F\xff\xff\xff")
        raw = (tmp_path / "blob").read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        durable.settle(tmp_path / "blob", space.blob(digest))
        form = Form(sha256=digest, length=len(raw), codec=full.codec)
        named = carried(space, catalog, pointer).manifests
        return replace(
            pointer, manifests=tuple(replace(f, forms=(form,)) for f in named)
        )

    second = scene.second(forms=hostile)
    assert second == scene.read("1.1.0")
    assert scene.plainly


def test_a_form_that_is_cut_short_is_continued(scene):
    def half(handler):
        data = (scene.publisher.public / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True

    scene.origin.misbehave("/blobs/", half)
    with pytest.raises(TransientError):
        scene.read("1.0.0")
    scene.origin.behave()
    assert scene.first == scene.read("1.0.0")
    seen = dict(zip(scene.origin.requests, scene.origin.headers_seen, strict=True))
    ranges = [seen[path].get("Range", "") for path in seen if "/blobs/" in path]
    assert [True] == [text.startswith("bytes=") for text in ranges]


def test_what_a_channel_does_not_offer_any_more_is_not_named(scene):
    scene.second()
    space = scene.publisher.space
    repository = scene.publisher.open()
    catalog = publish.catalog_of(space, repository, "acme")
    named = catalog.pointer("stable").manifests
    assert ["1.1.0"] == [forms.version for forms in named]
    assert 2 == len(named[0].forms)
    with space.locked():
        assert named == carried(space, catalog, catalog.pointer("stable")).manifests
