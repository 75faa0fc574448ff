# SPDX-License-Identifier: Apache-2.0
"""What every kind of destination does; a further kind is a further parameter here."""

import os

import httpx
import pytest

from updaterd.core.caching import FRESH, IMMUTABLE
from updaterd.errors import BrokenError
from updaterd.release.destinations import registry
from updaterd.release.destinations.contract import RefusedError, UnreachableError

BLOB = f"blobs/sha256/ab/ab{'0' * 62}"
POINTER = "metadata/timestamp.json"


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def destination(request, tmp_path):
    if request.param == "folder":
        (tmp_path / "there").mkdir()
        return registry.open_destination("there", base=tmp_path)
    gate, cloud = (request.getfixturevalue(name) for name in ("gate", "cloud"))
    cloud.reset()
    cloud.make("releases")
    gate.clear()
    return registry.open_destination("s3://releases/some/where", base=tmp_path)


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(12 << 20))
    return path


def test_a_file_is_there_as_it_was_sent_and_progress_sums_up(destination, large):
    parts = []
    destination.send(BLOB, large, parts.append)

    assert destination.stored()[BLOB].size == 12 << 20
    assert destination.read(BLOB, 12 << 20).data == large.read_bytes()
    assert sum(parts) == 12 << 20


def test_only_one_of_two_creates_a_file(destination):
    assert destination.create(POINTER, b"first")
    assert not destination.create(POINTER, b"second")
    assert destination.read(POINTER, 100).data == b"first"


def test_what_another_wrote_meanwhile_is_not_replaced(destination):
    destination.create(POINTER, b"1")
    before = destination.read(POINTER, 100)

    assert destination.replace(POINTER, b"2 by another", before)
    assert not destination.replace(POINTER, b"2 by us", before)
    assert not destination.replace(POINTER, b"2 by us", None)
    assert destination.read(POINTER, 100).data == b"2 by another"


def test_what_is_gone_is_not_replaced(destination):
    destination.create(POINTER, b"1")
    before = destination.read(POINTER, 100)
    destination.delete(POINTER)
    destination.delete(POINTER)

    assert not destination.replace(POINTER, b"2", before)
    assert destination.read(POINTER, 100) is None
    assert POINTER not in destination.stored()


def test_more_than_the_limit_is_not_taken(destination):
    destination.create(POINTER, b"12345")
    with pytest.raises(UnreachableError, match="larger than 4 bytes"):
        destination.read(POINTER, 4)


@pytest.mark.slow
def test_who_reads_a_bucket_is_told_how_long_to_keep_what(cloud, gate, tmp_path, large):
    address = cloud.make("told")
    bucket = registry.open_destination("s3://told/x", base=tmp_path)
    bucket.create(POINTER, b"{}")
    bucket.create("metadata/1.root.json", b"{}")
    bucket.send(BLOB, large, lambda _: None)

    told = {
        path: httpx.get(f"{address}/x/{path}").headers
        for path in (POINTER, "metadata/1.root.json", BLOB)
    }
    assert [entry["cache-control"] for entry in told.values()] == [
        FRESH, IMMUTABLE, IMMUTABLE,
    ]  # fmt: skip
    assert [entry["content-type"] for entry in told.values()] == [
        "application/json", "application/json", "application/octet-stream",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_request_that_failed_is_tried_again(cloud, gate, tmp_path):
    cloud.make("flaky")
    bucket = registry.open_destination("s3://flaky", base=tmp_path)
    gate.before = lambda number, *_: 503 if number < 3 else None

    assert bucket.create(POINTER, b"{}")
    assert len(gate.requests) == 3


@pytest.mark.slow
def test_a_bucket_that_is_missing_or_closed_is_for_a_person(cloud, gate, tmp_path):
    with pytest.raises(RefusedError, match="no bucket at s3://nowhere"):
        registry.open_destination("s3://nowhere/x", base=tmp_path).stored()
    gate.before = lambda *_: 403
    with pytest.raises(RefusedError, match="s3://closed refuses"):
        registry.open_destination("s3://closed", base=tmp_path).stored()


def test_nobody_there_ends_when_patience_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    bucket = registry.open_destination("s3://gone", base=tmp_path, patience_s=0)
    with pytest.raises(UnreachableError, match="cannot reach s3://gone"):
        bucket.stored()


@pytest.mark.parametrize("address", ["ftp://host/x", "", "http://host", "s3:///"])
def test_an_address_of_no_kind_is_refused(address, tmp_path):
    with pytest.raises(BrokenError):
        registry.open_destination(address, base=tmp_path)


@pytest.mark.parametrize("address", ["s3://key:secret@bucket", "az://box/x?sig=secret"])
def test_a_secret_in_an_address_is_neither_used_nor_shown(address, tmp_path):
    with pytest.raises(BrokenError) as refused:
        registry.open_destination(address, base=tmp_path)
    assert "key:" not in str(refused.value)
    assert "sig=" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["s3://bucket/deep/prefix", "gs://bucket/prefix", "az://container/x"]
)
def test_each_cloud_has_its_scheme(address, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    assert registry.open_destination(address, base=tmp_path).address == address


def test_a_directory_that_is_not_mounted_is_not_made(tmp_path):
    with pytest.raises(RefusedError, match="no directory"):
        registry.open_destination("absent", base=tmp_path).stored()
    assert not (tmp_path / "absent").exists()
