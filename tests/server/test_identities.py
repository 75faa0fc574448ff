# SPDX-License-Identifier: Apache-2.0
"""Identity tokens of a CI: each attack by its name, and that honest ones count."""

import asyncio
import hashlib
import hmac
import json
import ssl
import subprocess
import sys
import threading
from functools import partial

import pytest
from fakes.certificates import make_certificate
from fakes.issuer import DISCOVERY, SUBJECT, Issuer, Key, forge
from fakes.serving import FeedProcess, announcement, publish, request

from updaterd.core.identity import (
    LEEWAY_S,
    BadRuleError,
    IssuerDownError,
    RefusedIdentityError,
    matches,
    read_rule,
)
from updaterd.errors import RejectedError
from updaterd.net.connect import open_client
from updaterd.server.identities import COOLDOWN_S, Identities
from updaterd.server.tokens import Tokens

NOW = 1_800_000_000.0
MAIN = "repo:acme/app:ref:refs/heads/main"
TAGS = "repo:acme/app:ref:refs/tags/v*"


@pytest.fixture(scope="module")
def rsa():
    return Key("rsa", "RS256")


@pytest.fixture(scope="module")
def ec():
    return Key("ec")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("authority"))[0]


@pytest.fixture
def issuer(rsa, ec):
    with Issuer(rsa, ec) as issuer:
        yield issuer


class Rig:
    """Grants in a real token file, and time that the test turns."""

    def __init__(self, folder, issuer, authority):
        self.tokens = Tokens(folder)
        self.issuer = issuer
        self.at = 0.0
        self.identities = Identities(
            self.tokens.grants,
            clock=lambda: self.at,
            now=lambda: NOW + self.at,
            # one authority is read in no time, and the system's in 60 ms
            connect=partial(open_client, ca_file=authority),
        )

    def grant(self, rest=f"subject={SUBJECT}", issuer=None, scope="publish:acme/*"):
        rule = read_rule(f"issuer={issuer or self.issuer.url},{rest}")
        return self.tokens.grant(rule, (scope,), name="ci", now=int)

    def claims(self, **changes):
        return self.issuer.claims(NOW + self.at, **changes)

    async def refused(self, token, *words):
        with pytest.raises(RefusedIdentityError) as caught:
            await self.identities.find(token)
        for word in words:
            assert word in str(caught.value)
        return caught.value


@pytest.fixture
async def rig(tmp_path, issuer, authority):
    rig = Rig(tmp_path, issuer, authority)
    yield rig
    await rig.identities.close()


async def test_honest_token_of_each_kind_of_key_counts(rig, rsa, ec):
    grant = rig.grant()
    for key in (rsa, ec):
        assert await rig.identities.find(key.sign(rig.claims())) == (grant,)
    assert rig.issuer.asked == [DISCOVERY, "/jwks"]  # once for both


async def test_all_grants_that_take_it_are_found(rig, ec):
    one, two = rig.grant(), rig.grant("subject=repo:acme/app:ref:refs/tags/v*")
    rig.grant("subject=repo:acme/other:ref:refs/tags/v*")
    assert await rig.identities.find(ec.sign(rig.claims())) == (one, two)


async def test_alg_none(rig, ec):
    rig.grant()
    await rig.identities.find(ec.sign(rig.claims()))
    for alg in ("none", "None", "NONE", ""):
        for signature in (b"", b"x" * 64):
            token = forge({"alg": alg, "kid": "ec"}, rig.claims(), signature)
            await rig.refused(token)


async def test_hs256_signed_with_the_public_key(rig, rsa):
    """What everybody has would be the secret, if the header chose the algorithm."""
    rig.grant()
    for secret in (rsa.pem(), rsa.pem().strip(), json.dumps(rsa.public).encode()):
        head, claims, _ = forge({"alg": "HS256", "kid": "rsa"}, rig.claims()).split(".")
        signature = hmac.new(secret, f"{head}.{claims}".encode(), hashlib.sha256)
        token = forge({"alg": "HS256", "kid": "rsa"}, rig.claims(), signature.digest())
        await rig.refused(token, "HS256")


async def test_symmetric_key_in_the_jwks(rig, issuer):
    """A key that both sides have is none, whoever lists it."""
    rig.grant()
    shared = type("Shared", (), {"public": {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}})
    issuer.keys.append(shared)
    await rig.refused(forge({"alg": "HS256", "kid": "s"}, rig.claims(), b"x"), "no key")


async def test_small_rsa_key(rig, issuer):
    small = Key("small", "RS256", bits=1024)
    issuer.keys.append(small)
    rig.grant()
    token = forge({"alg": "RS256", "kid": "small"}, rig.claims(), b"x" * 128)
    await rig.refused(token, "no key")


async def test_other_algorithm_than_the_key_is_for(rig, rsa):
    rig.grant()
    claims = rig.claims()
    await rig.refused(forge({"alg": "PS256", "kid": "rsa"}, claims, b"x"), "PS256")


async def test_claims_changed_after_signing(rig, ec):
    rig.grant()
    head, _, signature = ec.sign(rig.claims(sub="repo:evil/app:ref:x")).split(".")
    claims = forge({}, rig.claims()).split(".")[1]
    await rig.refused(f"{head}.{claims}.{signature}", "signature")


async def test_key_of_the_attacker_under_a_known_name(rig):
    rig.grant()
    await rig.refused(Key("ec").sign(rig.claims()), "signature")


async def test_key_that_the_token_brings_along(rig, issuer):
    """`jwk`, `jku`, `x5u` and `crit` are the sender's words, and nobody's else."""
    rig.grant()
    evil = Key("evil")
    with Issuer(evil) as other:
        for header in (
            {"jwk": evil.public},
            {"jku": f"{other.url}/jwks"},
            {"x5u": f"{other.url}/jwks"},
        ):
            await rig.refused(evil.sign(rig.claims(), kid="ec", **header), "signature")
            rig.at += COOLDOWN_S
            await rig.refused(evil.sign(rig.claims(), **header), "no key")
        assert other.asked == []


@pytest.mark.parametrize(
    "kid",
    [
        "../../etc/passwd",
        "/dev/null",
        "' OR 1=1 --",
        "ec\0",
        "x" * 257,
        "",
        5,
        None,
        [],
    ],
)
async def test_kid_that_is_a_path_or_worse(rig, issuer, kid):
    """A name is looked up in what the issuer listed, and nowhere else."""
    rig.grant()
    token = forge({"alg": "ES256", "kid": kid}, rig.claims(), b"x" * 64)
    await rig.refused(token)
    assert set(issuer.asked) <= {DISCOVERY, "/jwks"}


async def test_issuer_that_no_grant_names(rig, ec):
    """Nobody can make the server ask an address of their choice."""
    rig.grant()
    with Issuer(ec) as other:
        await rig.refused(ec.sign(other.claims(NOW)), "no grant names the issuer")
        assert other.asked == []


@pytest.mark.parametrize("change", ["{}/", "{}/.", "{}?", "{} ", "HTTP{}"])
async def test_issuer_that_is_written_otherwise(rig, issuer, ec, change):
    """A slash at the end, too, makes it another."""
    rig.grant()
    other = change.format(issuer.url).replace("HTTPhttp", "HTTP")
    await rig.refused(ec.sign(rig.claims(iss=other)), "no grant names the issuer")


async def test_grant_whose_issuer_has_a_slash_too_many(rig, issuer, ec):
    """What discovery says of itself must be what the grant says, to the letter."""
    rig.grant(issuer=f"{issuer.url}/")
    with pytest.raises(IssuerDownError, match="about the issuer"):
        await rig.identities.find(ec.sign(rig.claims(iss=f"{issuer.url}/")))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"aud": "pypi"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": ["pypi", "updaterd-evil"]}, "audience"),
        ({"aud": {"updaterd": 1}}, "audience"),
        ({"sub": None}, "subject"),
        ({"sub": ["repo:acme/app:ref:refs/tags/v1.0.0"]}, "subject"),
        ({"exp": NOW - LEEWAY_S}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "never"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1e308}, "exp"),
        ({"iat": None}, "iat"),
        ({"iat": NOW + LEEWAY_S + 1, "nbf": None}, "counts only in"),
        ({"nbf": NOW + LEEWAY_S + 1}, "counts only in"),
        ({"nbf": "now"}, "nbf"),
        ({"exp": NOW + 90_000}, "lives longer"),
    ],
)
async def test_token_of_another_audience_or_time(rig, ec, changes, word):
    rig.grant()
    await rig.refused(ec.sign(rig.claims(**changes)), word)


async def test_clocks_that_are_a_little_apart(rig, ec):
    grant = rig.grant()
    for changes in (
        {"exp": NOW - LEEWAY_S + 1},
        {"iat": NOW + LEEWAY_S, "nbf": NOW + LEEWAY_S},
        {"aud": ["pypi", "updaterd"]},
    ):
        assert await rig.identities.find(ec.sign(rig.claims(**changes))) == (grant,)


async def test_token_that_is_sent_again_after_it_expired(rig, ec):
    rig.grant()
    token = ec.sign(rig.claims())
    await rig.identities.find(token)
    rig.at += 300 + LEEWAY_S
    await rig.refused(token, "expired")


async def test_grant_that_was_revoked(rig, ec):
    grant = rig.grant()
    token = ec.sign(rig.claims())
    await rig.identities.find(token)
    rig.tokens.revoke(grant.id)
    await rig.refused(token, "no grant names")


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        (MAIN, "repo:acme/app:ref:refs/heads/main", True),
        (MAIN, "repo:acme/app:ref:refs/heads/main2", False),
        (MAIN, "repo:acme/app-evil:ref:refs/heads/main", False),
        (TAGS, "repo:acme/app:ref:refs/tags/v1.0", True),
        (TAGS, "repo:acme/app:ref:refs/tags/v", False),
        (TAGS, "repo:acme/app-evil:ref:refs/tags/v1", False),
        (TAGS, "repo:acme/app:ref:refs/tags/v1:x", False),
        (TAGS, "REPO:acme/app:ref:refs/tags/v1", False),
        (TAGS, "x repo:acme/app:ref:refs/tags/v1", False),
        ("repo:acme/app:environment:*", "repo:acme/app:environment:prod", True),
        ("repo:acme/app:environment:*", "repo:acme/app:environment:a:b", False),
        ("repo:acme/app:p*", "repo:acme/app:pull_request", False),
        ("repo:acme/app:pull_request", "repo:acme/app:pull_request", True),  # in full
        ("a:b?c[de]", "a:bxcd", False),  # no other character is special
    ],
)  # fmt: skip
def test_subject_that_begins_like_another(pattern, subject, expected):
    assert matches(pattern, subject) == expected


@pytest.mark.parametrize(
    "subject",
    ["*", "repo*", "repo:*", "repo:acme/*", "repo:acme/app*", "repo:acme/app:*",
     "repo:*/app:ref:x", "repo:acme/app:*:x", "**", "repo:acme/ä:x", ""],
)  # fmt: skip
def test_grant_that_would_take_what_nobody_means(subject):
    with pytest.raises(BadRuleError):
        read_rule(f"issuer=https://x.example,subject={subject}")


@pytest.mark.parametrize(
    "text",
    ["", "issuer=https://x.example", "subject=a:b", "issuer=a,subject=b,subject=c",
     "issuer=a,subject=b,audience=", "issuer=a, subject=b",
     "issuer=a,claims.x=1,subject=b\n"],
)  # fmt: skip
def test_rule_with_a_slip(text):
    with pytest.raises(BadRuleError):
        read_rule(text)


def test_rule_is_read_as_it_is_written():
    """Also a subject with commas, as branches may have them."""
    text = "issuer=https://x,subject=repo:a/b:ref:refs/heads/x,y,audience=z,claim.n=1"
    rule = read_rule(text)
    assert (rule.subject, rule.audience) == ("repo:a/b:ref:refs/heads/x,y", "z")
    assert str(rule) == text
    assert read_rule(str(rule)) == rule


async def test_account_of_the_same_name_made_anew(rig, ec):
    """A name that was given up can be taken; its number cannot."""
    rig.grant(f"subject={SUBJECT},claim.repository_owner_id=7")
    await rig.identities.find(ec.sign(rig.claims(repository_owner_id="7")))
    await rig.identities.find(ec.sign(rig.claims(repository_owner_id=7)))
    for other in ("8", None, True, ["7"]):
        token = ec.sign(rig.claims(repository_owner_id=other))
        await rig.refused(token, "repository_owner_id")


async def test_many_unknown_names_of_keys_are_one_question(rig, issuer, ec):
    """Strangers cannot make the server flood the issuer, nor forget its keys."""
    grant = rig.grant()
    forged = [
        forge({"alg": "ES256", "kid": f"k{n}"}, rig.claims(), b"x") for n in range(50)
    ]
    errors = await asyncio.gather(
        *map(rig.identities.find, forged), return_exceptions=True
    )
    assert {type(error) for error in errors} <= {RefusedIdentityError, IssuerDownError}
    assert issuer.asked == [DISCOVERY, "/jwks"]
    assert await rig.identities.find(ec.sign(rig.claims())) == (grant,)
    assert issuer.asked == [DISCOVERY, "/jwks"]


async def test_issuer_that_changes_its_key(rig, issuer, ec):
    """The new one is taken when it is met, and the old one no more."""
    grant = rig.grant()
    old = ec.sign(rig.claims(exp=NOW + 80_000))
    await rig.identities.find(old)
    new = Key("new")
    issuer.keys[:] = [new]
    with pytest.raises(IssuerDownError, match="a moment ago"):
        await rig.identities.find(new.sign(rig.claims()))
    rig.at += COOLDOWN_S
    assert await rig.identities.find(new.sign(rig.claims())) == (grant,)
    rig.at += COOLDOWN_S
    await rig.refused(old, "no key")


async def test_key_that_the_issuer_took_back(rig, issuer, ec):
    """It counts for an hour, also where nobody shows another."""
    grant = rig.grant()
    token = ec.sign(rig.claims(exp=NOW + 80_000))
    await rig.identities.find(token)
    issuer.keys.clear()
    rig.at += 3599
    assert await rig.identities.find(token) == (grant,)
    rig.at += 1
    await rig.refused(token, "no key")


async def test_issuer_that_is_away_for_a_while(rig, issuer, ec):
    """Keys that are known count for a day; without any it is 503, not a refusal."""
    grant = rig.grant()
    await rig.identities.find(ec.sign(rig.claims()))
    issuer.misbehave = {DISCOVERY: lambda: (503, {}, b"")}
    rig.at += 4000
    assert await rig.identities.find(ec.sign(rig.claims())) == (grant,)
    rig.at += 86_400
    with pytest.raises(IssuerDownError, match="503"):
        await rig.identities.find(ec.sign(rig.claims()))


MISBEHAVIOUR = {
    "huge": ("/jwks", lambda _: (200, {}, b" " * (300 << 10)), "more than"),
    "many": (
        "/jwks",
        lambda _: (200, {}, json.dumps({"keys": [{"kty": "EC"}] * 65}).encode()),
        "65 items",
    ),
    "a redirect": ("/jwks", lambda url: (302, {"Location": f"{url}/evil"}, b""), "302"),
    "a redirect of discovery": (
        DISCOVERY,
        lambda url: (301, {"Location": f"{url}/evil"}, b""),
        "301",
    ),
    "compressed": (
        "/jwks",
        lambda _: (200, {"Content-Encoding": "gzip"}, b"x"),
        "encoded",
    ),
    "no JSON": ("/jwks", lambda _: (200, {}, b"<html>"), "not valid JSON"),
    "deep": ("/jwks", lambda _: (200, {}, b"[" * 100_000), ""),
    "a list": ("/jwks", lambda _: (200, {}, b"[]"), "not an object"),
    "about another": (
        DISCOVERY,
        lambda _: (200, {}, b'{"issuer": "https://x", "jwks_uri": "https://x"}'),
        "about the issuer",
    ),
    "keys of another scheme": (
        DISCOVERY,
        lambda url: (
            200,
            {},
            json.dumps({"issuer": url, "jwks_uri": "file:///etc/passwd"}).encode(),
        ),
        "not an https address",
    ),
    "keys over plain http": (
        DISCOVERY,
        lambda url: (
            200,
            {},
            json.dumps({"issuer": url, "jwks_uri": "http://x.example/"}).encode(),
        ),
        "not an https address",
    ),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
async def test_issuer_that_misbehaves(rig, issuer, ec, name):
    """Nobody gets in, nothing is followed, and the next look finds the keys."""
    grant = rig.grant()
    path, answer, word = MISBEHAVIOUR[name]
    issuer.misbehave = {path: lambda: answer(issuer.url)}
    with pytest.raises(IssuerDownError) as caught:
        await rig.identities.find(ec.sign(rig.claims()))
    assert word in str(caught.value)
    assert "/evil" not in issuer.asked
    issuer.misbehave = {}
    rig.at += COOLDOWN_S
    assert await rig.identities.find(ec.sign(rig.claims())) == (grant,)


async def test_issuer_over_tls_that_leads_to_this_very_machine(tmp_path, ec, authority):
    """Its keys must not come from a plain port of the server's own host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.with_name("server.pem"))
    with Issuer(ec) as inside, Issuer(ec, tls=context) as issuer:
        rig = Rig(tmp_path, issuer, authority)
        grant = rig.grant()
        token = ec.sign(rig.claims())
        document = {"issuer": issuer.url, "jwks_uri": f"{inside.url}/jwks"}
        body = json.dumps(document).encode()
        issuer.misbehave = {DISCOVERY: lambda: (200, {}, body)}
        with pytest.raises(IssuerDownError, match="not https, as its issuer is"):
            await rig.identities.find(token)
        assert inside.asked == []
        issuer.misbehave = {}
        rig.at += COOLDOWN_S
        assert await rig.identities.find(token) == (grant,)
        await rig.identities.close()


async def test_issuer_that_is_slow_holds_up_nobody_else(rig, issuer, ec):
    """The loop turns while its keys are waited for, and who leaves takes none along."""
    grant = rig.grant()
    asked, go_on = threading.Event(), threading.Event()

    def wait():
        asked.set()
        go_on.wait(30)
        return 200, {}, json.dumps({"keys": [ec.public]}).encode()

    issuer.misbehave = {"/jwks": wait}
    first, second = (
        asyncio.create_task(rig.identities.find(ec.sign(rig.claims()))) for _ in "ab"
    )
    await asyncio.to_thread(asked.wait, 30)  # the loop is free
    first.cancel()
    go_on.set()
    assert await second == (grant,)
    assert issuer.asked.count("/jwks") == 1


@pytest.mark.parametrize(
    "token",
    ["..", "a.b.c", "é.b.c", "." * 3, f"{'e30' * 9000}.e30.x", "e30.W10.", "e30.e30."],
)
async def test_what_is_no_token(rig, token):
    rig.grant()
    await rig.refused(token)


def test_grant_for_readers_is_refused(tmp_path, issuer):
    """A stream would outlive the token."""
    rule = read_rule(f"issuer={issuer.url},subject={SUBJECT}")
    with pytest.raises(RejectedError, match="scope read"):
        Tokens(tmp_path).grant(rule, ("read",), name="", now=int)


def updaterd(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "updaterd", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_server_takes_announcements_of_a_job(tmp_path, issuer, ec):
    """From the grant's command to the stream's event: scopes, codes and the log."""
    state = tmp_path / "state"
    made = updaterd(
        *("token", "create", "--state", state, "--scope", "publish:acme/stable"),
        *("--name", "ci", "--oidc", f"issuer={issuer.url},subject={SUBJECT}"),
    )
    assert made.returncode == 0, made.stderr
    grant = made.stdout.strip()
    listed = json.loads(updaterd("token", "list", "--state", state, "--json").stdout)
    assert [g["id"] for g in listed["grants"]] == [grant]
    assert SUBJECT in updaterd("token", "list", "--state", state).stdout
    with FeedProcess(state) as feed:
        token = ec.sign(issuer.claims())
        assert publish(feed.url, token, announcement()).status == 201
        assert publish(feed.url, token, announcement(product="other")).status == 403
        stranger = Key("ec").sign(issuer.claims())
        refused = publish(feed.url, stranger, announcement())
        assert (refused.status, refused.json["code"]) == (401, "identity_refused")
        assert "invalid_token" in refused.headers["www-authenticate"]
        assert (
            request(f"{feed.url}/metrics", authorization=f"Bearer {token}").status
            == 403
        )
        assert updaterd("token", "revoke", "--state", state, grant).returncode == 0
        assert publish(feed.url, token, announcement()).status == 401
        feed.stop()
    lines = [json.loads(line) for line in feed.log.read_text().splitlines()]
    assert [line["publisher"] for line in lines if line["event"] == "announced"] == [
        grant
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "issuer=http://x.example,subject=a:b",
        "issuer=https://x.example,subject=repo:a/b:*",
    ],
)
def test_grant_that_cannot_be_used_is_refused_at_once(tmp_path, rule):
    done = updaterd(
        *("token", "create", "--state", tmp_path / "s", "--scope", "operate"),
        *("--oidc", rule),
    )
    assert done.returncode == 1
    assert "https" in done.stderr
    assert not (tmp_path / "s/tokens.json").exists()
