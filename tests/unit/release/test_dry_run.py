# SPDX-License-Identifier: Apache-2.0
"""`updaterd release push --dry-run`: it says what happens then, and changes nothing."""

import json

import pytest
from fakes.bundles import grow

from updaterd import cli
from updaterd.core.routes import choose_route, codecs_since
from updaterd.release import order as orders
from updaterd.release.upkeep import expiry
from updaterd.release.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def push(tmp_path, capsys):
    folder = tmp_path / "ops"

    def call(version, *words):
        data = {"app+x": version.encode(), "data": bytes(range(256)) * 80}
        grow(tmp_path / version, data) if not (tmp_path / version).exists() else None
        code = cli.main([
            "release", "push", str(tmp_path / version), "--repo", str(folder),
            "--product", "acme", "--channel", "stable", "--version", version, "--json",
            *words,
        ])  # fmt: skip
        assert code == 0
        return json.loads(capsys.readouterr().out)

    assert not cli.main([
        "release", "init", str(folder), "--profile", "demo", "--product", "acme",
        "--channel", "stable",
    ])  # fmt: skip
    capsys.readouterr()
    call.folder = folder
    call("1.0.0")
    call("1.1.0")
    return call


def everything(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for top in ("public", "keys")
        for path in (folder / top).rglob("*")
        if path.is_file()
    }


def versions(folder, now):
    space = Workspace(folder)
    repository = orders.open_repository(space, now)
    return {role.name: role.version for role in expiry.report(space, repository, now)}


def test_a_dry_run_leaves_everything_as_it_is(push):
    before = everything(push.folder)

    answer = push("2.0.0", "--dry-run")

    assert answer["dry_run"] is True
    assert everything(push.folder) == before


def test_it_names_the_roles_and_the_bytes_of_the_push_that_follows(push, now):
    before = versions(push.folder, now)
    answer = push("2.0.0", "--dry-run")

    real = push("2.0.0")
    after = versions(push.folder, now)

    signed = {name for name, version in after.items() if before[name] != version}
    assert set(answer["would_sign"]) == signed
    assert answer["platforms"] == real["platforms"]
    space = Workspace(push.folder)
    catalog = orders.catalog_of(space, orders.open_repository(space, now), "acme")
    release = catalog.manifest(catalog.require("2.0.0"))
    codecs = codecs_since(release.min_updater)
    for fetch in answer["fetches"]:
        have = {}
        if fetch["installed"]:
            old = catalog.manifest(catalog.require(fetch["installed"]))
            have = {old.version: old.tree}
        route = choose_route(release, have=have, codecs=codecs)
        assert (fetch["bytes"], fetch["route"]) == (route.bytes, route.name)
    assert [fetch["installed"] for fetch in answer["fetches"]] == [
        None,
        "1.1.0",
        "1.0.0",
    ]


def test_machines_over_a_stepping_stone_fetch_both(push):
    """And those of another platform nothing."""
    arm = push.folder.parent / "1.1.0"
    push("1.2.0", "--tree", f"linux-aarch64={arm}")
    answer = push(
        "2.0.0", "--dry-run", "--from-seq-min", "2", "--without", "linux-aarch64"
    )

    fetched = {fetch["installed"]: fetch for fetch in answer["fetches"]}
    assert fetched["1.0.0"]["route"].startswith("over 1.2.0: ")
    direct = fetched["1.2.0"]["bytes"]
    assert fetched["1.0.0"]["bytes"] > direct
    assert answer["untouched"] == ["linux-aarch64"]


def test_a_dry_run_of_what_is_published_signs_nothing(push):
    assert push("1.1.0", "--dry-run")["would_sign"] == []


def test_a_dry_run_of_a_withdrawal_leaves_everything_as_it_is(push, capsys):
    before = everything(push.folder)
    yank = ["release", "yank", "--version", "1.1.0", "--product", "acme", "--repo"]

    assert 0 == cli.main([*yank, str(push.folder), "--dry-run"])

    assert "1.0.0" in capsys.readouterr().out
    assert everything(push.folder) == before


@pytest.fixture
def now():
    from datetime import UTC, datetime

    return datetime.now(UTC)
