# SPDX-License-Identifier: Apache-2.0
"""`/openapi.json` says what the server does, no more and no less.

Longer, by hand (CONTRIBUTING.md): UPDATERD_EXAMPLES=300 pytest -s on this file.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from fakes.serving import FeedProcess, announcement, publish, request
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from updaterd.core.announcement import parse
from updaterd.errors import MalformedError
from updaterd.server.http.openapi.document import describe
from updaterd.server.http.openapi.schemas import announcement_schema

SCHEMA = announcement_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
PACKED = {"timestamp": "eJw=", "snapshot": "eJw="}


@pytest.fixture(scope="module", params=["fast", "asgi"])
def feed(request, tmp_path_factory):
    """Streams end within a second: a request for one is answered in full."""
    folder = tmp_path_factory.mktemp("feed")
    (folder / "public/metadata").mkdir(parents=True)
    (folder / "public/metadata/timestamp.json").write_text("{}")
    arguments = (
        *("--sink", request.param, "--repo", str(folder / "public")),
        *("--heartbeat", "0.02", "--lifetime", "0.04", "--rate", "100000"),
        *("--metrics", "open"),
    )
    with FeedProcess(folder / "state", *arguments) as feed:
        yield feed


def test_document_is_served_to_everybody(feed):
    answer = request(f"{feed.url}/openapi.json")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == describe()
    assert answer.json["openapi"].startswith("3.1.")
    for schema in answer.json["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_schemathesis_finds_nothing(feed, tmp_path):
    """Every status, media type, header and body is one that the document has.

    Bodies and parameters that its schemas refuse are refused, a missing token and
    missing headers too, and methods that it does not have.
    """
    seed, examples = "17", os.environ.get("UPDATERD_EXAMPLES", "3")
    # streams are the only answers that the other sink writes
    which = ["--include-path", "/v1/events"] if "asgi" in feed.arguments else []
    # this server takes no reports; tests/server/test_reports.py has hostile ones
    which_not = ["--exclude-path-regex", "^/v1/(reports|fleet)"]
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("st"), "--no-color"),
            *("--config-file", Path(__file__).with_name("schemathesis.toml"), "run"),
            *(f"{feed.url}/openapi.json", "--url", feed.url),
            *("-H", f"Authorization: Bearer {feed.token('publish:*/*')}"),
            *("--seed", seed, "--max-examples", examples, "--no-shrink"),
            *("--phases", "examples,coverage,fuzzing", "--continue-on-failure"),
            *("--generation-database", "none", *which, *which_not),
        ],
        cwd=tmp_path,  # it leaves folders behind
        capture_output=True,
        text=True,
        check=False,
    )
    if os.environ.get("UPDATERD_EXAMPLES"):
        print(done.stdout[-600:])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    selected, total = map(
        int, re.search(r"(\d+) selected / (\d+) total", done.stdout).groups()
    )
    paths = describe()["paths"]
    assert total >= len(paths)
    left_out = [path for path in paths if re.match(which_not[1], path)]
    assert selected == (2 if which else total - len(left_out)), done.stdout


def test_what_is_posted_is_answered_as_documented(feed):
    """An accepted announcement, and its repetition."""
    validator = Draft202012Validator(describe()["components"]["schemas"]["Announced"])
    token = feed.token("publish:acme/stable")
    for _ in range(2):
        answer = publish(feed.url, token, announcement(), key="same")
        assert answer.status == 201
        validator.validate(answer.json)
    assert answer.headers["idempotent-replayed"] == "true"


values = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**54), st.sampled_from([0.5, 1e9]),
    st.text(max_size=3), st.sampled_from(["acme", "A", "a.b", "1.0", "-1", "x" * 65]),
    st.sampled_from(["normal", "critical", "now"]), st.just([]), st.just({}),
    st.just(PACKED), st.just({"timestamp": "x" * 8193}),
    st.just({"timestamp": "", "snapshot": None}), st.just({"snapshot": "eJw="}),
)  # fmt: skip
MEMBERS = (
    "schema",
    "product",
    "channel",
    "version",
    "seq",
    "urgency",
    "spread_s",
    "tuf",
)


@given(
    st.sampled_from([{}, {"tuf": PACKED}]),
    st.dictionaries(st.sampled_from(MEMBERS), values, max_size=3),
    st.sets(st.sampled_from(MEMBERS), max_size=2),
)
def test_body_is_taken_exactly_when_its_schema_says_so(more, changes, dropped):
    """Neither knows of a limit that the other does not."""
    body = {**announcement(), **more, **changes}
    body = {name: value for name, value in body.items() if name not in dropped}
    try:
        parse(json.dumps(body).encode())
        is_taken = True
    except MalformedError:
        is_taken = False
    assert VALIDATOR.is_valid(body) == is_taken, body


@pytest.mark.parametrize(
    ("member", "last", "beyond"),
    [
        ("spread_s", 30 * 86400, 30 * 86400 + 1), ("spread_s", 0, -1),
        ("seq", 2**53 - 1, 2**53), ("seq", 0, -1), ("urgency", "critical", "now"),
        ("product", "x" * 64, "x" * 65), ("version", "x" * 64, "x" * 65),
    ],
)  # fmt: skip
def test_limit_is_the_same_in_both(member, last, beyond):
    for value, is_taken in ((last, True), (beyond, False)):
        body = announcement() | {member: value}
        assert VALIDATOR.is_valid(body) == is_taken
        with nullcontext() if is_taken else pytest.raises(MalformedError):
            parse(json.dumps(body).encode())


def test_example_of_the_document_is_an_announcement():
    for example in SCHEMA["examples"]:
        VALIDATOR.validate(example)
        assert parse(json.dumps(example).encode()).product == example["product"]
