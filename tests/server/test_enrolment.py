# SPDX-License-Identifier: Apache-2.0
"""One-time codes: one machine each, whatever is raced, killed, replayed or guessed."""

import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

import pytest
from fakes.reports import body, report
from fakes.serving import FeedProcess, request
from fakes.tools import need_root

from updaterd.core.enrolment import Asked, BadCodeError, code_of, digest_of, read_code
from updaterd.errors import BrokenError, RejectedError
from updaterd.server.enrolment.codes import (
    LONGEST_S,
    MOST_CODES,
    Enrolment,
    RefusedCodeError,
)
from updaterd.server.tokens import Tokens

NOW = 1_800_000_000
DAY = 86400
SCOPES = ("read", "report:acme")


def made(state, *, count=1, scopes=SCOPES, lasts_s=DAY):
    codes = Tokens(state).enrolment.make(
        scopes, name="berlin", count=count, lasts_s=lasts_s, now=NOW
    )
    return [secret for _, secret in codes]


def asked(code, made_there="upd_of-the-machine", products=("acme",)):
    return Asked(code=code, token_sha256=digest_of(made_there), products=products)


def refusal(state, *arguments, now=NOW, **more):
    with pytest.raises(RefusedCodeError) as caught:
        Tokens(state).enroll(asked(*arguments, **more), now=now)
    return caught.value.code


def test_code_becomes_a_token_that_may_what_was_said(tmp_path):
    (code,) = made(tmp_path)
    token, is_new = Tokens(tmp_path).enroll(asked(code), now=NOW)

    assert is_new
    found = Tokens(tmp_path).find("upd_of-the-machine")
    assert found == token == Tokens(tmp_path).get(token.id)
    assert found.may("read")
    assert found.may_report("acme")
    assert not found.may_report("other")
    assert not found.may_publish("acme", "stable")
    assert Tokens(tmp_path).enrolment.codes() == ()


def test_neither_code_nor_token_is_in_any_file(tmp_path):
    """Who reads the server's state, or a copy of it, gets in nowhere."""
    used, unused = made(tmp_path, count=2)
    Tokens(tmp_path).enroll(asked(used), now=NOW)
    files = list(tmp_path.iterdir())
    kept = b"".join(path.read_bytes() for path in files)

    for secret in (used, unused, "of-the-machine"):
        assert secret.encode() not in kept
        assert secret.replace("-", "").encode() not in kept
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_thieves_who_race_for_a_code_get_one_token_among_them(tmp_path):
    (code,) = made(tmp_path)
    start = Barrier(8)

    def use(number):
        tokens = Tokens(tmp_path)
        start.wait()
        try:
            return tokens.enroll(asked(code, f"upd_{number}"), now=NOW)[1]
        except RefusedCodeError as error:
            return error.code

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(use, range(8)))
    assert sorted(map(str, ends)) == ["True", *["code_used"] * 7]
    assert len(Tokens(tmp_path).enrolment.machines()) == 1


def test_machine_that_got_no_answer_is_told_the_same_again(tmp_path):
    """Also when the code has expired meanwhile; not when it was revoked."""
    (code,) = made(tmp_path)
    first, _ = Tokens(tmp_path).enroll(asked(code), now=NOW)
    again = Tokens(tmp_path).enroll(asked(code), now=NOW + 9 * DAY)

    assert again == (first, False)
    Tokens(tmp_path).revoke(first.id)
    assert refusal(tmp_path, code) == "code_unknown"
    assert Tokens(tmp_path).find("upd_of-the-machine") is None


def test_replayed_code_gets_a_thief_nothing(tmp_path):
    """Not even with the whole exchange before him: the token was never in it."""
    (code,) = made(tmp_path)
    Tokens(tmp_path).enroll(asked(code), now=NOW)

    assert refusal(tmp_path, code, "upd_thief") == "code_used"
    assert Tokens(tmp_path).find("upd_thief") is None
    assert Tokens(tmp_path).find(digest_of("upd_of-the-machine")) is None


def test_code_that_expired_or_was_revoked_gets_nobody_in(tmp_path):
    expired, revoked = made(tmp_path, count=2)
    assert refusal(tmp_path, expired, now=NOW + DAY) == "code_expired"

    tokens = Tokens(tmp_path)
    for code in tokens.enrolment.codes():
        tokens.revoke(code.id)
    assert refusal(tmp_path, revoked) == "code_unknown"
    assert refusal(tmp_path, code_of(os.urandom(13))) == "code_unknown"


def test_code_for_another_product_is_not_used_up(tmp_path):
    """A slip of who hands out codes costs a message, not a code."""
    (code,) = made(tmp_path)
    assert refusal(tmp_path, code, products=("other",)) == "code_elsewhere"
    assert Tokens(tmp_path).enroll(asked(code), now=NOW)[1]


def test_hash_of_somebody_elses_token_is_not_enrolled(tmp_path):
    """Who knows it would put his few rights in the place of the publisher's many."""
    publisher, secret = Tokens(tmp_path).create(
        ("publish:*/*",), name="ci", now=lambda: NOW
    )
    mine, other = made(tmp_path, count=2)
    Tokens(tmp_path).enroll(asked(mine), now=NOW)

    assert refusal(tmp_path, other, secret) == "token_taken"
    assert refusal(tmp_path, other) == "token_taken"
    assert Tokens(tmp_path).find(secret) == publisher
    assert Tokens(tmp_path).enroll(asked(other, "upd_2"), now=NOW)[1]


@pytest.mark.parametrize(
    "terms",
    [{"count": 0}, {"count": -1}, {"count": MOST_CODES + 1}, {"lasts_s": 0},
     {"lasts_s": LONGEST_S + 1}, {"scopes": ("publish:acme/stable",)},
     {"scopes": ("operate",)}, {"scopes": ("fleet:read",)}, {"scopes": ("report:",)}],
)  # fmt: skip
def test_codes_are_bounded_in_number_life_and_rights(tmp_path, terms):
    with pytest.raises(RejectedError):
        made(tmp_path, **terms)
    assert Tokens(tmp_path).enrolment.codes() == ()


def test_codes_that_wait_count_against_the_bound(tmp_path):
    made(tmp_path, count=MOST_CODES - 1)
    made(tmp_path)
    with pytest.raises(RejectedError) as caught:
        made(tmp_path)
    assert "wait to be used" in caught.value.cause


def test_names_that_are_drawn_twice_are_given_once(tmp_path):
    """Else a code could not be used, or who revokes one machine revoked two."""
    drawn = iter(["a", "a", "b", "a", "b", "c"])
    enrolment = Enrolment(tmp_path, draw=lambda: next(drawn))
    terms = {"name": "", "lasts_s": DAY, "now": NOW}
    for code, secret in enrolment.make(SCOPES, count=2, **terms):
        Tokens(tmp_path).enroll(asked(secret, code.id), now=NOW)
    ((code, _),) = enrolment.make(SCOPES, count=1, **terms)
    assert [machine.id for machine in enrolment.machines()] == ["a", "b"]
    assert code.id == "c"


def test_code_survives_a_disk_that_refuses_its_use(tmp_path):
    """And it is not said that no machine gets in: those that are known do."""
    (code,) = made(tmp_path)
    with closing(sqlite3.connect(tmp_path / "enrolment.db")) as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON machines "
            "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    with pytest.raises(BrokenError) as caught:
        Tokens(tmp_path).enroll(asked(code), now=NOW)
    assert caught.value.code == "tokens_unwritable"
    assert "nothing was changed" in str(caught.value)
    with closing(sqlite3.connect(tmp_path / "enrolment.db")) as db:
        db.execute("DROP TRIGGER full")
    assert Tokens(tmp_path).enroll(asked(code), now=NOW)[1]


def test_server_sees_at_once_what_another_process_did(tmp_path):
    """It looks before each answer: a revoked machine's next request is refused."""
    server, operator = Tokens(tmp_path), Tokens(tmp_path)
    assert server.find("upd_of-the-machine") is None
    (code,) = made(tmp_path)
    operator.enroll(asked(code), now=NOW)
    token = server.find("upd_of-the-machine")
    assert token is not None
    operator.revoke(token.id)
    assert server.find("upd_of-the-machine") is None
    assert server.get(token.id) is None


def test_damaged_file_is_told(tmp_path):
    """Not "no such code": the operator must know."""
    (tmp_path / "enrolment.db").write_bytes(b"not a database" * 100)
    with pytest.raises(BrokenError) as caught:
        Tokens(tmp_path).find("upd_x")
    assert caught.value.code == "tokens_unreadable"


def test_file_that_root_makes_is_the_servers(tmp_path):
    """`sudo updaterd token create` must not lock the server out of its own file."""
    need_root()
    nobody = 65534
    os.chown(tmp_path, nobody, nobody)
    tokens = Tokens(tmp_path)
    made(tmp_path)
    tokens.enrolment.codes()
    owners = {path.stat().st_uid for path in tmp_path.iterdir()}
    assert owners == {nobody}


@pytest.mark.parametrize(
    "typed", ["7gk2m-oqxpa-t9dbe-4hziw", " 7GK2M 0QXPA T9DBE 4HZ1W\n",
              "7GK2M0QXPAT9DBE4HZlW"],
)  # fmt: skip
def test_code_is_read_as_people_type(typed):
    assert read_code(typed) == "7GK2M-0QXPA-T9DBE-4HZ1W"


@pytest.mark.parametrize("typed", ["", "7GK2M-0QXPA-T9DBE-4HZ1", "upd_abc", "U" * 20])
def test_what_can_be_no_code_is_told_before_the_server_is_asked(typed):
    with pytest.raises(BadCodeError):
        read_code(typed)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enrolment")
    with FeedProcess(folder / "state", "--reports", "token", "--private") as feed:
        yield feed


def post(server, document):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return request(f"{server.url}/v1/enroll", "POST", data)


def document(code, **more):
    return {"schema": 1, "code": code, "token_sha256": digest_of("upd_m"), **more}


def living(state):
    from updaterd.clocks import wall_clock

    ((_, code),) = Tokens(state).enrolment.make(
        ("report:acme",), name="", count=1, lasts_s=DAY, now=int(wall_clock())
    )
    return code


def test_token_of_a_code_for_acme_reports_about_acme_alone(server):
    code = living(server.state)
    assert post(server, document(code)).status == 201
    repeated = post(server, document(code))
    assert (repeated.status, repeated.json["scopes"]) == (200, ["report:acme"])
    assert b"upd_" not in repeated.body
    bearer = {"authorization": "Bearer upd_m"}

    def tell(product):
        sent = body(report(1, product=product))
        return request(f"{server.url}/v1/reports", "POST", sent, **bearer).status

    assert tell("acme") == 202
    assert tell("other") == 403
    assert request(f"{server.url}/v1/events", **bearer).status == 403
    Tokens(server.state).revoke(repeated.json["id"])
    assert tell("acme") == 401


@pytest.mark.parametrize(
    "hostile",
    [b"", b"[]", b"{", b'{"schema":1}', b"\xff", b"[" * 10_000, b"{}" * 20_000,
     json.dumps(document("x")).encode(), json.dumps(document(7)).encode(),
     json.dumps(document("7GK2M-0QXPA-T9DBE-4HZ1W") | {"token_sha256": "0"}).encode(),
     json.dumps(document("7GK2M-0QXPA-T9DBE-4HZ1W", products=["<b>"])).encode(),
     json.dumps(document("7GK2M-0QXPA-T9DBE-4HZ1W") | {"schema": 2}).encode()],
    ids=range(12),
)  # fmt: skip
def test_hostile_body_ends_in_a_typed_refusal(server, hostile):
    answer = post(server, hostile)
    assert answer.status in {400, 413, 429}
    assert answer.json["code"] in {
        "malformed", "newer_schema", "too_large", "too_many_tries",
    }  # fmt: skip


def test_guesser_is_sent_away_and_who_is_right_is_not_counted(tmp_path):
    """Ten guesses, then one in ten seconds: of 2^100 codes."""
    with FeedProcess(tmp_path / "state") as feed:
        right = living(feed.state)
        for _ in range(15):  # a crowd behind one address, all with codes
            assert post(feed, document(right)).status in {200, 201}
        ends = [post(feed, document(code_of(os.urandom(13)))).status for _ in range(11)]
        assert ends == [403] * 10 + [429]
        away = post(feed, document(right))
        assert away.json["code"] == "too_many_tries"
        assert away.headers["retry-after"] == "10"
        log = feed.log.read_text()
        assert log.count('"enrolment_refused"') <= 3  # one a kind and minute
        assert right not in log
