# SPDX-License-Identifier: Apache-2.0
"""What looking for updates costs a machine: requests and bytes, repository of a size.

    python benchmarks/trust.py [--products 20] [--channels 3] [--releases 1000]

Bytes are bodies as received; each response adds about 180 bytes of headers on
HTTP/1.1. Aims: nothing new in 2 requests and < 1 kB; own release, with metadata
pushed, in <= 3 requests and <= 7 kB up to and including the manifest.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakes.origin import Origin
from fakes.repository import PLATFORM, Client, Publisher, manifest_of
from tuf.api.metadata import TargetFile

from updaterd.core.manifest import Delta, File, tree_id
from updaterd.release import publish
from updaterd.release.deltas import carried_over
from updaterd.release.repository.releases import KEPT


def fill(publisher: Publisher, products: list[str], releases: int):
    """Enter a long history for every product, in one publication."""
    repository = publisher.open()
    for product in products:
        entries = {
            f"{product}/releases/1.{number}.0/{PLATFORM}.json": TargetFile(
                4321,
                {"sha256": f"{number:064x}"},
                f"{product}/releases/1.{number}.0/{PLATFORM}.json",
                {"custom": {"seq": number}},
            )
            for number in range(1, releases + 1)
        }
        names = list(entries)
        with repository.edit(f"{product}.releases") as role:
            role.targets = {name: entries[name] for name in names[-KEPT:]}
        with repository.edit(f"{product}.archive") as role:
            role.targets = {name: entries[name] for name in names[:-KEPT]}
        listing = publish.catalog_of(publisher.space, repository, product)
        for channel in listing.channels():
            pointer = listing.pointer(channel)
            listing.point(publish.offer(pointer, f"1.{releases}.0", releases))
    repository.commit()


def releases_with_deltas(publisher: Publisher, releases: int, count: int, files: int):
    """Publish real manifests on top, each with the edges that `push` would list."""
    history: list = []
    for number in range(releases + 1, releases + 12):
        version = f"1.{number}.0"
        listing = tuple(
            File(f"lib/part{index}.so", f"{number * 100 + index:064x}", 10_000, 0o644)
            for index in range(files)
        )
        edges = [
            Delta(
                from_version=old.version,
                from_tree=old.tree,
                to_version=version,
                to_tree=tree_id(listing),
                sha256=f"{number * 1000 + old.seq:064x}",
                length=123_456,
                codec="updaterd-delta",
                memory=40_000_000,
            )
            for old in history[:count]
        ]
        release = publisher.release(
            version,
            seq=number,
            files=listing,
            deltas=(*edges, *carried_over(edges, history[:count])),
            full=manifest_of("acme", version, number).full.__class__(
                sha256="ab" * 32,
                length=1_000_000,
                unpacked=10_000 * files,
                codec="zstd",
            ),
        )
        history.insert(0, release)
        yield release


def measure(title: str, origin: Origin, work):
    origin.behave()
    began = time.perf_counter()
    work()
    spent = (time.perf_counter() - began) * 1000
    print(f"{title:<52} {len(origin.requests):>2} {origin.sent:>7,} B {spent:>6.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=20)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--releases", type=int, default=1000)
    parser.add_argument("--deltas", type=int, default=5)
    parser.add_argument("--files", type=int, default=3)
    options = parser.parse_args()
    products = ["acme", *(f"product{n:02}" for n in range(1, options.products))]
    channels = ["stable", "beta", "nightly"][: options.channels]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        publisher = Publisher(folder / "ops", products=products, channels=channels)
        fill(publisher, products, options.releases)
        history = releases_with_deltas(
            publisher, options.releases, options.deltas, options.files
        )
        for _ in range(8):
            next(history)

        with Origin(publisher.public) as origin:
            client = Client(folder / "trust", publisher.bootstrap, origin)

            def look(**more):
                view = client.refresh(**more)
                version = view.channel("acme", "stable").releases[0].version
                return view, version

            def whole(**more):
                view, version = look(**more)
                view.manifest("acme", version, PLATFORM)

            print(
                f"{len(products)} products x {len(channels)} channels x "
                f"{options.releases} releases; {options.files} files, "
                f"deltas from {options.deltas}\n"
                f"{'':<52} requests   bodies    time"
            )
            measure("first look, empty cache, to the manifest", origin, whole)
            measure("nothing new", origin, look)
            publisher.release("1.2000.0", product="product01", seq=2000)
            measure("another product's release", origin, look)
            publisher.release("1.2001.0", product="product01", seq=2001)
            pushed = publisher.pushed()
            measure(
                "another product's release, metadata pushed",
                origin,
                lambda: look(pushed=pushed),
            )
            next(history)
            measure("own release, to the manifest", origin, whole)
            release = next(history)
            pushed = publisher.pushed()
            measure(
                "own release, metadata pushed, to the manifest",
                origin,
                lambda: whole(pushed=pushed),
            )
            for path in origin.requests:
                size = (publisher.public / path.lstrip("/")).stat().st_size
                print(f"    {path.rsplit('/', 1)[1][-44:]:<48} {size:>7,} B")
            print(f"    ({len(release.deltas)} edges in the manifest)")
            client.close()


if __name__ == "__main__":
    main()
