# SPDX-License-Identifier: Apache-2.0
"""Two regions: each has a feed and a copy of the files, and outlives the other."""

from fakes.machine import Machine, cli
from fakes.serving import FeedProcess, Reader
from fakes.trees import make_tree
from fakes.waiting import eventually


def release(folder, version):
    return make_tree(
        folder / version,
        {"bin/app": f"#!/bin/sh\necho {version}\n", "lib/data": b"same" * 4000},
    )


class Region:
    """A feed server and the files beside it, which the first region's push copies."""

    def __init__(self, folder):
        self.files = folder / "mirror"
        self.files.mkdir(parents=True)
        self.feed = FeedProcess(folder / "feed", "--repo", str(self.files))
        self.token_file = folder / "token"

    def __enter__(self):
        self.feed.start()
        self.token_file.write_text(self.feed.token("publish:acme/stable"))
        self.token_file.chmod(0o600)
        return self

    def __exit__(self, *_):
        self.feed.__exit__()

    @property
    def feed_url(self):
        return f"{self.feed.url}/v1/events"


def announce(site, feed_url, token_file, copy):
    """Bring the copy to the repository's state, and tell a region's feed."""
    cli(
        "release", "sync", "--repo", site.workspace, *copy,
        "--feed", feed_url, "--token-file", token_file,
    )  # fmt: skip


async def test_region_goes_on_when_the_other_is_lost(tmp_path, site):
    """Whatever is lost, one command brings the news to the other region's machines."""
    trees = tmp_path / "trees"
    with Region(site.root / "second") as second:
        copy = ("--to", second.files)
        site.push(release(trees, "1.0.0"), "1.0.0", *copy)
        announce(site, second.feed_url, second.token_file, copy)
        machine = Machine(
            tmp_path / "machine",
            feed=second.feed_url,
            repository=f"{second.feed.url}/repo",
            bootstrap=site.bootstrap,
        )
        machine("update", "acme")
        assert machine.running == "1.0.0"
        machine.start()
        try:
            eventually(lambda: machine.status()["feed"]["connection"])
            eventually(
                lambda: machine.status()["feed"]["connection"]["phase"] == "open"
            )
            site.hard_stop()  # the first region is gone, and its feed with it
            done = cli(
                "release", "push", release(trees, "1.1.0"), "--repo", site.workspace,
                "--product", "acme", "--version", "1.1.0", "--channel", "stable",
                "--feed", site.feed_url, "--token-file", site.token_file, *copy,
                expect=None,
            )  # fmt: skip
            assert done.returncode != 0
            assert "published, and the feed was not told" in done.stderr
            announce(site, second.feed_url, second.token_file, copy)
            machine.wait_for("1.1.0")
        finally:
            machine.stop()
        async with Reader(second.feed.url) as reader:
            cursor = (await reader.next()).id

        # back again: the same command tells it, and machines that came to it meanwhile
        # are told to look, since no cursor of the other region is one of its own
        site.start()
        announce(site, site.feed_url, site.token_file, copy)
        headers = {"Last-Event-ID": cursor}
        async with Reader(site.address, headers=headers) as reader:
            assert (await reader.next()).name == "resync"
