# SPDX-License-Identifier: Apache-2.0
"""A machine's side of enrolment: its token is on the disk before it is spoken of."""

import json
import os

import pytest

from updaterd.core.enrolment import Granted, digest_of
from updaterd.core.settings import Enrolment
from updaterd.errors import BrokenError, RejectedError, TransientError
from updaterd.net import Fetcher
from updaterd.net.addresses import token_headers
from updaterd.reports.enroll import Enroller
from updaterd.system.locks import BusyError

URL = "https://updates.example.com/v1/enroll"
CODE, OTHER = "7GK2M-0QXPA-T9DBE-4HZ1W", "8GK2M-0QXPA-T9DBE-4HZ1W"
GRANTED = Granted(id="5f0c2a91", name="berlin", scopes=("read", "report:acme")).encode()


class Server:
    """Answers as told; sees what was on the machine's disk when it was asked."""

    def __init__(self, folder, *answers):
        self.folder = folder
        self.answers = list(answers)
        self.hashes = []
        self.kept = []

    def exchange(self, url, body, *, headers):
        assert url == URL
        self.hashes.append(json.loads(body)["token_sha256"])
        assert b"upd_" not in body
        self.kept.append({
            digest_of(json.loads(path.read_text())["token"])
            for path in self.folder.glob("*.json")
        })
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, said, *more = answer
        return status, more[0] if more else {}, said


def enroller(folder):
    return Enroller(
        settings=Enrolment(url=URL), file=folder / "enrolment.json", now=lambda: 1e9
    )


def enroll(folder, server, code=CODE, pauses=None):
    pauses = [] if pauses is None else pauses
    return enroller(folder).enroll(
        code, ("acme",), server, within_s=60.0, pause=pauses.append
    )


def problem(status, code="code_used"):
    said = {"code": code, "detail": "<b>no\x1b[2J</b>", "remedy": "ask"}
    return status, json.dumps(said).encode()


def test_token_is_on_the_disk_before_its_hash_is_sent(tmp_path):
    server = Server(tmp_path, (201, GRANTED))
    known, before = enroll(tmp_path, server)

    assert server.hashes[0] in server.kept[0]
    assert (known.id, known.server, before) == (
        "5f0c2a91", "https://updates.example.com", None,
    )  # fmt: skip
    assert digest_of(known.token) == server.hashes[0]
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "loss", [TransientError("cut"), (502, b"<html>"), (201, b"<html>")]
)
def test_lost_answer_is_asked_for_again_with_the_same_token(tmp_path, loss):
    """Killed here, killed there, or a proxy's page: the code is not lost."""
    server = Server(tmp_path, loss, (200, GRANTED))
    with pytest.raises(TransientError):
        enroll(tmp_path, server)
    assert enroller(tmp_path).known() is None
    assert token_headers(tmp_path / "enrolment.json", URL) == {}

    known, _ = enroll(tmp_path, server)
    assert set(server.hashes) == {digest_of(known.token)}


def test_code_that_is_mistyped_after_a_lost_answer_does_not_cost_the_first(tmp_path):
    """Else the server, which took it, would call the very machine a thief."""
    lost, typo = TransientError("cut"), problem(403, "code_unknown")
    server = Server(tmp_path, lost, typo, (200, GRANTED))
    with pytest.raises(TransientError):
        enroll(tmp_path, server)
    with pytest.raises(RejectedError):
        enroll(tmp_path, server, OTHER)
    known, _ = enroll(tmp_path, server)
    first, second, last = server.hashes
    assert first == last == digest_of(known.token) != second
    assert [path.name for path in tmp_path.glob("*.json")] == ["enrolment.json"]


def test_token_is_not_forgotten_while_the_machine_is_enrolled(tmp_path):
    """It would be there again a moment later, and nobody told."""
    busy = (*problem(503, "unavailable"), {"retry-after": "5"})
    server = Server(tmp_path, busy, (201, GRANTED))

    def forget(_):
        with pytest.raises(BusyError):
            enroller(tmp_path).forget()

    enroller(tmp_path).enroll(CODE, (), server, within_s=60.0, pause=forget)
    assert enroller(tmp_path).forget() is not None
    assert enroller(tmp_path).known() is None
    assert enroller(tmp_path / "none").forget() is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["fifo", "link", "zeros"])
def test_what_stands_in_the_place_of_the_token_is_not_waited_for(tmp_path, kind):
    file = tmp_path / "enrolment.json"
    if kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to({"link": tmp_path / "none", "zeros": "/dev/zero"}[kind])
    assert token_headers(file, URL) == {}
    with pytest.raises(BrokenError):
        enroller(tmp_path).known()
    enroller(tmp_path).forget()
    assert not os.path.lexists(file)


def test_answer_without_a_name_enrols_nobody(tmp_path):
    """The file would say that the machine is not enrolled."""
    nameless = Granted(id="", name="", scopes=()).encode()
    with pytest.raises(TransientError):
        enroll(tmp_path, Server(tmp_path, (201, nameless)))


def test_code_given_twice_is_the_same_machine_and_another_is_another(tmp_path):
    server = Server(tmp_path, *[(201, GRANTED)] * 3)
    first, _ = enroll(tmp_path, server)
    again, before = enroll(tmp_path, server)
    assert again.token == first.token == before.token
    other, before = enroll(tmp_path, server, OTHER)
    assert other.token != first.token == before.token


def test_refused_code_leaves_the_machine_as_known_as_before(tmp_path):
    server = Server(tmp_path, (201, GRANTED), problem(409))
    known, _ = enroll(tmp_path, server)
    with pytest.raises(RejectedError) as caught:
        enroll(tmp_path, server, OTHER)

    assert caught.value.code == "code_used"
    assert "\x1b" not in str(caught.value)
    assert enroller(tmp_path).known() == known


def test_busy_server_is_asked_again_when_it_says_so(tmp_path):
    pauses = []
    busy = (*problem(429, "too_many_tries"), {"retry-after": "10"})
    enroll(tmp_path, Server(tmp_path, busy, busy, (201, GRANTED)), pauses=pauses)
    assert pauses == [10.0, 10.0]
    for_long = (*problem(429, "too_many_tries"), {"retry-after": "3600"})
    with pytest.raises(TransientError) as caught:
        enroll(tmp_path, Server(tmp_path, for_long), OTHER)
    assert "the code still counts" in str(caught.value)


def test_server_without_enrolment_is_named_as_that(tmp_path):
    with pytest.raises(TransientError) as caught:
        enroll(tmp_path, Server(tmp_path, problem(404, "not_found")))
    assert "not where machines are enrolled" in caught.value.cause


def test_token_goes_to_the_server_that_took_the_code_and_to_no_other(tmp_path):
    known, _ = enroll(tmp_path, Server(tmp_path, (201, GRANTED)))
    file = tmp_path / "enrolment.json"
    told = {"Authorization": f"Bearer {known.token}"}

    for url in (URL, "https://updates.example.com:443/repo"):
        assert token_headers(file, url) == told
    for url in (
        "http://updates.example.com/", "https://updates.example.com:8443/",
        "https://updates.example.com.evil/", "https://evil/?updates.example.com", "",
    ):  # fmt: skip
        assert token_headers(file, url) == {}
    for damage in ("", "[]", "{}", '{"origin": {}}', "\x00"):
        file.write_text(damage)
        assert token_headers(file, URL) == {}


class Way:
    """In place of a network: keeps what was asked with."""

    def ask(self, method, url, headers, body, patience_s):
        self.headers = headers
        raise TransientError("away")

    def close(self):
        pass


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_header_that_the_owner_wrote_stands_before_the_token(tmp_path, name):
    known, _ = enroll(tmp_path, Server(tmp_path, (201, GRANTED)))
    file = tmp_path / "enrolment.json"
    for headers, expected in (({}, f"Bearer {known.token}"), ({name: "mine"}, "mine")):
        way = Way()
        with (
            Fetcher(headers=headers, token_file=file, origin=URL, way=way) as fetcher,
            pytest.raises(TransientError),
        ):
            fetcher.exchange(URL, b"", headers={})
        sent = {key.lower(): value for key, value in way.headers.items()}
        assert sent["authorization"] == expected


def test_damaged_token_is_told_and_can_be_forgotten(tmp_path):
    (tmp_path / "enrolment.json").write_text("{")
    with pytest.raises(BrokenError) as caught:
        enroller(tmp_path).known()
    assert "--forget" in caught.value.do
    enroller(tmp_path).forget()
    assert enroller(tmp_path).known() is None
    assert not list(tmp_path.glob("*.json"))
