# SPDX-License-Identifier: Apache-2.0
"""Many real machines on one site, and what their own journals come to.

The journals are the truth that the server's figures are compared with: all of them, as
the API tells them and as the console shows them.
"""

import json
import re
import urllib.parse
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from fakes.machine import Machine, cli

from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

TAGS = ("staff", "berlin", "paris", "beta-testers", "kiosk")
HARDWARE = ("x86_64", "aarch64", "riscv64")
KINDS = len(HARDWARE)
PLATFORMS = tuple(f"linux-{name}" for name in HARDWARE)
SERVE = ("--reports", "open", "--reports-rate", "10000", "--console")
OUTCOMES = {"INSTALLED": "installed", "ROLLED_BACK": "rolled_back",
            "REJECTED": "rejected", "FAILED": "failed"}  # fmt: skip
CHANNEL = "/console/products/acme/channels/stable"


class Member(Machine):
    """One machine of a crowd, with its tag and its platform's name."""

    def __init__(self, root, site, number, *, ident="", url="", kinds=KINDS):
        self.tag = TAGS[number % len(TAGS)]
        self.platform = PLATFORMS[number % kinds]
        url = f'url = "{url}"\n' if url else ""
        super().__init__(
            root,
            feed=site.feed_url,
            repository=f"{site.address}/repo",
            bootstrap=site.bootstrap,
            health=["/bin/sh", "-c", f"test ! -e {root}/broken-$UPDATERD_VERSION"],
            extra=f'[reports]\nsend = true\ntags = ["{self.tag}"]\n{url}',
            hardware=HARDWARE[number % kinds],
        )
        if ident:
            (root / "state").mkdir()
            (root / "state/machine-id").write_text(f"{ident}\n")

    def breaks_at(self, version):
        """Have its health check fail as soon as that release runs."""
        (self.root / f"broken-{version}").touch()


def update(machines):
    """Have each look and do what is to be done, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda m: m("update", "acme", expect=None), machines))


def trees(tree, kinds=KINDS):
    """Return the words that push one tree for each platform of a crowd."""
    return [word for name in PLATFORMS[:kinds] for word in ("--tree", f"{name}={tree}")]


class Truth:
    """What the journals of machines say, added up."""

    def __init__(self, machines):
        self.machines = len(machines)
        self.ends, self.codes = Counter(), Counter()
        self.runs, self.fetched = Counter(), Counter()
        self.tags, self.platforms = Counter(), Counter()
        for each in machines:
            with closing(open_for_reading(each.root / "state/state.db")) as db:
                journal = Records(db)
                version = journal.installed("acme").version
                self.runs[version] += 1
                self.tags[version, each.tag] += 1
                self.platforms[version, each.platform] += 1
                for row in journal.history("acme", limit=100):
                    if outcome := OUTCOMES.get(str(row.state)):
                        self.ends[row.version, outcome] += 1
                        self.fetched[row.version] += row.bytes_fetched

    @property
    def versions(self):
        """The releases that any machine ended with."""
        return {version for version, _ in self.ends}

    def of(self, counts, version):
        """Return one release's part of a count."""
        return {name: n for (each, name), n in counts.items() if each == version}

    def failed(self, version):
        """Return how many machines a release did not succeed on."""
        told = self.of(self.ends, version)
        return sum(told.values()) - told.get("installed", 0)


class Person:
    """Who looks: with `release status --fleet`, and at the console without a script."""

    def __init__(self, site, folder):
        self.site, self.token_file = site, folder / "fleet-token"
        create = ("token", "create", "--state", site.state, "--scope", "fleet:read")
        self.token = cli(*create).stdout.strip()
        self.token_file.write_text(self.token)
        self.token_file.chmod(0o600)
        self._browser = None

    def status(self, *words):
        """Return what `release status --fleet` prints."""
        return cli(
            *("release", "status", "--fleet", "--repo", self.site.workspace),
            *("--feed", self.site.feed_url, "--token-file", self.token_file),
            *words,
        ).stdout

    def channels(self):
        """Return the same for programs."""
        return json.loads(self.status("--json").splitlines()[0])["channels"]

    def page(self, path):
        """Return a page of the console."""
        if self._browser is None:
            self._browser = urllib.request.build_opener(
                urllib.request.HTTPCookieProcessor()
            )
            form = urllib.parse.urlencode({"token": self.token, "next": path}).encode()
            url, data = f"{self.site.address}/console/login", form
        else:
            url, data = self.site.address + path, None
        with self._browser.open(url, data, timeout=30) as answer:
            return answer.read().decode()


def figures(html):
    """Return a page's boxes of figures, by their names."""
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([0-9]+)<", html))


def table(html, caption):
    """Return the rows of a table: its first cell, and its numbers."""
    part = html.partition(f"<caption>{caption}</caption>")[2].partition("</table>")[0]
    rows = {}
    for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL):
        head = re.search(r'<th scope="row"[^>]*>(.*?)</th>', row, re.DOTALL)
        if head:
            name = re.sub(r"<[^>]*>", "", head[1]).strip()
            cells = re.findall(r'<td class="n"[^>]*>([^<]*)</td>', row)
            rows[name] = [int(text) for text in cells if text.isdigit()]
    return rows


def assert_figures_are_the_journals(person, machines):
    """Compare all that is counted, in the API and on the console's pages."""
    truth = Truth(machines)
    ((channel,), fleet) = person.channels(), person.page("/console/")
    assert channel["machines"] == truth.machines
    assert figures(fleet)["Machines"] == str(truth.machines)
    rows = {row["version"]: row for row in channel["releases"]}
    assert set(rows) == truth.versions
    shown = table(person.page(CHANNEL), "Newest first")
    assert set(shown) == truth.versions
    for version, row in rows.items():
        told = truth.of(truth.ends, version)
        tags = truth.of(truth.tags, version)
        platforms = truth.of(truth.platforms, version)
        runs, failed = truth.runs[version], truth.failed(version)
        assert row["reports"] == row["machines"] == told
        assert row["running"] == runs
        assert row["bytes_fetched"] == truth.fetched[version]
        assert (row["tags"], row["platforms"]) == (tags, platforms)
        assert shown[version] == [runs, told.get("installed", 0), failed]
        page = person.page(f"{CHANNEL}/releases/{version}")
        boxes = figures(page)
        assert boxes["Run it"] == str(runs)
        assert boxes["Installed"] == str(told.get("installed", 0))
        assert boxes["Did not succeed"] == str(failed)
        assert table(page, "By tag") == {name: [n] for name, n in tags.items()}
        assert table(page, "By platform") == {n: [k] for n, k in platforms.items()}
        missed = table(page, "What did not succeed, and on which machines")
        assert sum(n for (n,) in missed.values()) == failed
    return truth
