# SPDX-License-Identifier: Apache-2.0
"""The schema in the package is the layout of what `status --json` prints."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.schema import SCHEMA, validate, validate_as_others
from jsonschema import Draft202012Validator, ValidationError

from updaterd import status
from updaterd.core.settings import (
    Directories,
    Download,
    Feed,
    Product,
    Schedule,
    Settings,
    Trust,
)
from updaterd.status import Subscription

NOW = 1_800_000_000.0
CAGE = {"layers": "Landlock 4, seccomp", "landlock": 4, "seccomp": True,
        "namespaces": False, "missing": ["no namespaces"]}  # fmt: skip


@pytest.fixture
def document(tmp_path):
    settings = Settings(
        feed=Feed(url="https://updates.example.com/v1/events"),
        trust=Trust(root=Path("/r"), repository="https://updates.example.com/repo"),
        download=Download(),
        schedule=Schedule(),
        products={"acme": Product(name="acme", root=tmp_path)},
        directories=Directories(
            config=tmp_path, state=tmp_path, cache=tmp_path, runtime=tmp_path
        ),
    )
    feed = Subscription(phase="waiting", code="dns", error="?", retry_at=NOW + 9)
    refused = status.refusal("config", "no such key", at=NOW)
    daemon = status.daemon_section(NOW, feed, refused, CAGE)
    return status.collect(None, settings, daemon=daemon, now=NOW)


def test_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


def test_document_of_a_daemon_fits(document):
    validate(document)


@pytest.mark.parametrize(
    "change",
    [
        status.left_behind,
        lambda document: status.unreadable(document, "this is old"),
        lambda document: status.misread(document, status.refusal("c", "m", at=NOW)),
    ],
    ids=["left_behind", "unreadable", "misread"],
)
def test_what_a_daemon_published_fits_however_it_is_read(document, change):
    validate(change(document))


def test_cage_that_cannot_be_built_fits(document):
    validate(document | {"cage": {"layers": "none", "missing": ["no cage"]}})


@pytest.mark.parametrize("part", [(), ("feed",), ("trust",), ("products", 0)])
def test_member_that_the_schema_lacks_is_found(document, part):
    place = document
    for name in part:
        place = place[name]
    place["surprise"] = 1

    with pytest.raises(ValidationError):
        validate(document)
    validate_as_others(document)  # which may come with any later updaterd


def _objects(schema) -> Iterator[dict]:
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from _objects(part)


def test_each_member_is_described():
    assert [
        name
        for part in _objects(SCHEMA)
        for name, member in part["properties"].items()
        if not member["description"].endswith(".")
    ] == []
