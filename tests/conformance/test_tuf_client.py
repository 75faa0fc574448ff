# SPDX-License-Identifier: Apache-2.0
"""The command line for TUF's conformance suite works on a repository of ours."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fakes import origin as origins
from fakes.origin import Origin
from fakes.repository import Publisher

SCRIPT = Path(__file__).with_name("tuf_client.py")


@pytest.fixture
def publisher(tmp_path):
    made = Publisher(tmp_path / "ops", now=datetime.now(UTC))
    made.release("1.0.0")
    return made


@pytest.fixture
def origin(publisher):
    with Origin(publisher.public) as server:
        yield server


@pytest.fixture
def run(tmp_path, publisher, origin):
    metadata = tmp_path / "metadata"
    metadata.mkdir()

    def call(command, *words, target=None):
        options = ["--metadata-dir", metadata]
        if command != "init":
            options += ["--metadata-url", f"{origin.url}/metadata"]
        if target:
            options += ["--target-name", target, "--target-dir", tmp_path / "got"]
            options += ["--target-base-url", f"{origin.url}/targets"]
        done = subprocess.run(
            [sys.executable, SCRIPT, *options, command, *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode

    assert call("init", publisher.metadata / "1.root.json") == 0
    return call


def test_metadata_is_kept_under_names_without_versions(run, tmp_path, publisher):
    """After a refresh the trusted files lie where the suite looks for them."""
    assert run("refresh") == 0
    for role in ("root", "timestamp", "snapshot", "targets"):
        kept = json.loads((tmp_path / "metadata" / f"{role}.json").read_bytes())
        assert kept["signed"]["version"] == publisher.open().roles[role].signed.version


def test_a_target_is_downloaded_once_and_again_when_it_changed(
    run, tmp_path, publisher, origin
):
    """Same file name, new contents; no request for what is already here."""
    target = "acme/channels/stable.json"
    assert run("download", target=target) == 0
    (got,) = (tmp_path / "got").iterdir()
    first = got.read_bytes()
    origin.requests.clear()
    assert run("download", target=target) == 0
    assert not any(path.startswith("/targets/") for path in origin.requests)
    publisher.release("1.1.0")
    assert run("download", target=target) == 0
    assert got.read_bytes() != first


def test_a_failure_is_an_exit_code(run, origin):
    """1 when it does not verify, is not there, or nobody signed the target."""
    origin.misbehave(r"snapshot\.json", origins.body(b"{}"))
    assert run("refresh") == 1
    origin.behave()
    assert run("refresh") == 0
    assert run("download", target="nobody/signed/this") == 1
