# SPDX-License-Identifier: Apache-2.0
"""The repository's files: ranges, validators, and how long who may keep them."""

import asyncio
import hashlib
import subprocess
import sys

import pytest
from fakes.serving import request

from updaterd.core.caching import FRESH, IMMUTABLE
from updaterd.errors import BrokenError
from updaterd.server.http import files
from updaterd.server.http.files import RepositoryFiles, cache_rules

CONTENT = hashlib.shake_256(b"a blob").digest(200_000)  # the same in every process
HASH = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"blobs/sha256/{HASH[:2]}/{HASH}"


@pytest.fixture(scope="module")
def sink():
    """Once is enough: sinks only write streams."""
    return "fast"


@pytest.fixture(scope="module")
def repo(shared_feed):
    root = shared_feed.repository
    path = root / BLOB
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    (root / "metadata/timestamp.json").write_text("{}")
    (root / "metadata/1.root.json").write_text("{}")
    (root / "metadata/.timestamp.json.new").write_text("half")
    (root.parent / "outside").write_text("secret")
    (root / "link").symlink_to(root.parent / "outside")
    return f"{shared_feed.url}/repo"


@pytest.mark.parametrize(
    ("path", "control"),
    [
        ("metadata/timestamp.json", FRESH),
        ("metadata/1.root.json", IMMUTABLE),
        ("metadata/12.acme.stable.json", IMMUTABLE),
        ("metadata/root.json", FRESH),
        (f"targets/acme/channels/{HASH}.stable.json", IMMUTABLE),
        ("targets/acme/channels/stable.json", FRESH),
        (BLOB, IMMUTABLE),
        ("blobs/sha256/ab/short", FRESH),
        ("anything", FRESH),
    ],
)
def test_only_what_never_changes_is_kept(path, control):
    """Named by hash or version: for ever. All else: asked for each time."""
    assert cache_rules(path)[0] == control


def test_whole_file(repo):
    """Content, length, validators; no transfer coding that a hash would not fit."""
    answer = request(f"{repo}/{BLOB}", accept_encoding="gzip")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.headers["etag"] == f'"{HASH}"'
    assert answer.headers["cache-control"] == IMMUTABLE
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in answer.headers


def test_rest_of_a_file(repo):
    """A download is resumed, also at another replica: the ETag is the hash."""
    answer = request(f"{repo}/{BLOB}", range="bytes=150000-", if_range=f'"{HASH}"')
    assert (answer.status, answer.body) == (206, CONTENT[150000:])
    assert answer.headers["content-range"] == "bytes 150000-199999/200000"


def test_rest_of_another_file_is_the_whole(repo):
    """If-Range of what is not there any more."""
    answer = request(f"{repo}/{BLOB}", range="bytes=150000-", if_range='"other"')
    assert (answer.status, answer.body) == (200, CONTENT)


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=300000-400000"])
def test_range_outside_is_416(repo, asked):
    """And tells the length."""
    answer = request(f"{repo}/{BLOB}", range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] in {"bytes */200000", "*/200000"}


def test_head(repo):
    """The same headers, no body."""
    answer = request(f"{repo}/{BLOB}", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == "200000"


def test_current_copy_is_not_sent_again(repo):
    """If-None-Match is answered 304, for the timestamp above all."""
    first = request(f"{repo}/metadata/timestamp.json")
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == FRESH
    again = request(f"{repo}/metadata/timestamp.json", if_none_match=etag)
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "nothing", "metadata", "", "../outside", "%2e%2e/outside", "..%2foutside",
        "metadata/.timestamp.json.new", "link", "metadata/%00", "a" * 5000,
        "//etc/passwd", "metadata/../../outside",
    ],
)  # fmt: skip
def test_what_is_not_ours_to_serve(repo, path):
    """Directories, hidden files, and anything outside: 404, not to be kept."""
    answer = request(f"{repo}/{path}")
    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"
    assert b"secret" not in answer.body


@pytest.mark.parametrize("named", ["ops", "ops/public"])
def test_a_workspace_hands_out_no_key(start_feed, tmp_path, named):
    """`serve --repo` on the folder that `push --repo` takes: only what is public."""
    ops = tmp_path / "ops"
    command = [sys.executable, "-m", "updaterd", "release", "init", ops]
    subprocess.run([*command, "--profile", "demo", "--product", "acme"], check=True)
    (ops / "public" / "metadata" / "online.json").symlink_to(ops / "keys/online.pem")
    (ops / "public" / "metadata" / "copy.json").symlink_to("../backup/keyring.json")
    foreign = ["index.html", "backup/keyring.json", ".well-known/security.txt",
               "targets/notes.txt", "blobs/sha256/ab/short"]  # fmt: skip
    for name in foreign:
        path = ops / "public" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not the repository's")
    feed = start_feed("--repo", tmp_path / named)
    assert request(f"{feed.url}/repo/metadata/1.root.json").status == 200
    assert request(f"{feed.url}/repo/metadata/timestamp.json").status == 200
    private = [f"keys/{path.name}" for path in (ops / "keys").iterdir()]
    links = ["metadata/online.json", "metadata/copy.json"]
    others = ["release.toml", "public/metadata/1.root.json", "lock"]
    for name in [*private, *links, *others, *foreign]:
        assert request(f"{feed.url}/repo/{name}").status == 404, name


def test_a_workspace_without_what_is_public_is_refused(tmp_path):
    """Nothing is served rather than its keys."""
    (tmp_path / "ops" / "keys").mkdir(parents=True)
    with pytest.raises(BrokenError) as caught:
        files.public_folder(tmp_path / "ops")
    assert caught.value.code == "no_repository"


def test_nothing_can_be_written(repo):
    """PUT, POST and DELETE do not exist here."""
    for method in ("PUT", "POST", "DELETE"):
        assert request(f"{repo}/{BLOB}", method).status == 405


async def test_metadata_replaced_while_it_is_answered_is_one_or_the_other(tmp_path):
    """Its length must be of the same file as its bytes."""
    path = tmp_path / "metadata/timestamp.json"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    sent = []

    async def send(message):
        sent.append(message)
        path.write_bytes(b'{"longer": 1}')

    async def receive():
        await asyncio.Event().wait()

    scope = {
        "type": "http", "method": "GET", "path": "/metadata/timestamp.json",
        "root_path": "", "headers": [], "client": ("192.0.2.1", 1),
    }  # fmt: skip
    await RepositoryFiles(directory=tmp_path)(scope, receive, send)
    (length,) = (v for k, v in sent[0]["headers"] if k == b"content-length")
    assert b"".join(m.get("body", b"") for m in sent) == b"{}"
    assert int(length) == 2
