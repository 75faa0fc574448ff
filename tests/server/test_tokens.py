# SPDX-License-Identifier: Apache-2.0
"""Tokens: shown once, kept as hashes, scoped."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.tools import need_root

from updaterd.core.identity import Rule
from updaterd.errors import BrokenError, RejectedError
from updaterd.server.scopes import Token, check_scope
from updaterd.server.tokens import Tokens


def test_only_the_hash_is_kept_and_only_for_the_owner(tmp_path):
    """Who reads the file cannot publish; others cannot read it."""
    _, secret = Tokens(tmp_path).create(("publish:acme/stable",), name="x", now=int)
    path = tmp_path / "tokens.json"
    assert secret.removeprefix("upd_") not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(secret) >= 4 + 43  # 256 bits in base64url


def test_token_is_found_by_its_secret_alone(tmp_path):
    """Another one, a prefix, its hash or nothing: not found."""
    tokens = Tokens(tmp_path)
    token, secret = tokens.create(("read",), name="", now=int)
    assert tokens.find(secret) == token
    for wrong in ("", secret[:-1], secret + "x", token.sha256, token.id, "ü\udcff"):
        assert tokens.find(wrong) is None


def test_names_that_are_drawn_twice_are_given_once(tmp_path):
    """Else who revoked one left the other, or the log named the wrong one."""
    drawn = iter(["a", "a", "b", "a", "b", "c"])
    tokens = Tokens(tmp_path, draw=lambda: next(drawn))
    first, secret = tokens.create(("read",), name="", now=int)
    tokens.create(("read",), name="", now=int)
    rule = Rule(issuer="https://id.example", subject="x", claims={})
    grant = tokens.grant(rule, ("publish:acme/stable",), name="", now=int)
    assert [token.id for token in tokens.all()] == ["a", "b"]
    assert grant.id == "c"
    tokens.revoke(first.id)
    assert tokens.find(secret) is None


def test_another_process_change_is_seen(tmp_path):
    """`updaterd token` and the server share nothing but the file."""
    server, command = Tokens(tmp_path), Tokens(tmp_path)
    assert server.all() == ()
    token, secret = command.create(("read",), name="", now=int)
    assert server.find(secret) == token
    command.revoke(token.id)
    assert server.find(secret) is None


def test_damaged_file_is_read_once_and_refused_until_it_is_mended(
    tmp_path, monkeypatch
):
    """Every heartbeat of a private feed asks: streams must not parse it each."""
    tokens = Tokens(tmp_path)
    token, _ = tokens.create(("read",), name="", now=int)
    path = tmp_path / "tokens.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    reads = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: reads.append(self) or read_bytes(self)
    )
    for _ in range(5):
        with pytest.raises(BrokenError) as caught:
            tokens.get(token.id)
        assert caught.value.code == "tokens_unreadable"
    assert reads == [path]
    path.write_bytes(whole)
    assert tokens.get(token.id) == token


@pytest.mark.parametrize(
    ("scope", "product", "channel", "allowed"),
    [
        ("publish:acme/stable", "acme", "stable", True),
        ("publish:acme/stable", "acme", "beta", False),
        ("publish:acme/*", "acme", "beta", True),
        ("publish:*/stable", "other", "stable", True),
        ("publish:*/stable", "other", "beta", False),
        ("publish:acme/stable", "acmeX", "stable", False),
        ("publish:acme/stable", None, None, True),
        ("operate", "acme", "stable", False),
        ("read", None, None, False),
    ],
)
def test_scopes(scope, product, channel, allowed):
    """A scope covers its product and channel, and nothing beside."""
    token = Token(id="i", name="n", sha256="0" * 64, scopes=(scope,), created=0)
    assert token.may_publish(product, channel) is allowed


@pytest.mark.parametrize(
    "scope",
    ["", "publish", "publish:acme", "publish:/", "publish:a b/c", "admin", "operate:x",
     "publish:acme/stable/x", "publish:../x", "READ"],
)  # fmt: skip
def test_scope_that_means_nothing_is_refused(scope):
    """A typing error must not make a token that never works."""
    with pytest.raises(RejectedError):
        check_scope(scope)


def test_token_that_root_makes_is_the_servers_to_read(tmp_path):
    """`sudo updaterd token create` must not lock the server out of its own file."""
    need_root()
    nobody = 65534
    os.chown(tmp_path, nobody, nobody)
    Tokens(tmp_path).create(("read",), name="", now=int)
    made = (tmp_path / "tokens.json").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (nobody, nobody, 0o600)


def test_damaged_file_is_told(tmp_path):
    """Not "no such token": the operator must know."""
    (tmp_path / "tokens.json").write_text("{")
    with pytest.raises(BrokenError):
        Tokens(tmp_path).all()


def test_commands(tmp_path):
    """create prints the secret alone; list shows it never; revoke ends it."""

    def updaterd(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "updaterd", "token", *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    where = ("--state", str(tmp_path / "new"))
    code, secret, _ = updaterd(
        "create", *where, "--scope", "publish:a/b", "--name", "ci"
    )
    assert code == 0
    assert Tokens(tmp_path / "new").find(secret.strip()) is not None
    code, table, _ = updaterd("list", *where)
    assert "publish:a/b" in table
    assert secret.strip() not in table
    _, document, _ = updaterd("list", *where, "--json")
    (token,) = json.loads(document)["tokens"]
    assert updaterd("revoke", *where, token["id"])[0] == 0
    code, _, error = updaterd("revoke", *where, token["id"])
    assert code == 1
    assert "what to do" in error
    assert updaterd("create", *where, "--scope", "publish:a")[0] == 1


def test_tokens_made_at_once_are_all_kept(tmp_path):
    """The last script to write must not lose what the others wrote."""
    barrier = threading.Barrier(8)

    def make(number):
        barrier.wait()
        tokens = Tokens(tmp_path)
        return [
            tokens.create(("read",), name=f"{number}", now=int)[0].id for _ in "12345"
        ]

    with ThreadPoolExecutor(8) as pool:
        ids = [ident for some in pool.map(make, range(8)) for ident in some]
    assert {token.id for token in Tokens(tmp_path).all()} == set(ids)
