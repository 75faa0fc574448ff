# SPDX-License-Identifier: Apache-2.0
"""The layout of a repository has one home, and its names are read as they are made."""

import ast
import re
from pathlib import Path

import pytest

import updaterd
from updaterd.core import layout

SOURCE = Path(updaterd.__file__).parent
HOME = SOURCE / "core" / "layout.py"
DIGEST = "ab" + "0" * 62

APART = ("server/console/", "release/kits/installer.py")
"""Pages have addresses of their own; the installer is alone, without updaterd."""
FOLDERS = {layout.METADATA, layout.TARGETS, layout.BLOBS}
SPELLED = re.compile(
    r"(?:^|/)(?:metadata|targets|blobs)/|/(?:releases|channels)/|^\.(?:releases|archive)"
    r"|(?:^|\.)(?:root|timestamp|snapshot)\.json$|^linux-"
)

MENTIONED = re.compile(
    r"(metadata|targets|blobs)[/\"]|/(releases|channels)/|\.(releases|archive)\""
    r"|(root|timestamp|snapshot)\.json|linux-"
)
"""In the text of a file that has to be parsed; most need not."""


def literals(tree: ast.AST):
    """Yield the strings that code works with, and whether each is a step of a path.

    Not prose: docstrings, help and messages name files as people know them; nor what
    a server answers at (`/v1/...`).
    """
    steps = {
        id(side)
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
        for side in (node.left, node.right)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if not re.search(r"\s", node.value) and not node.value.startswith("/v1/"):
            yield node, id(node) in steps


def spelled_elsewhere(folder: Path):
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        if path.relative_to(folder).as_posix().startswith(APART):
            continue
        if path == HOME or not MENTIONED.search(text):
            continue
        for node, is_step in literals(ast.parse(text)):
            if SPELLED.search(node.value) or (is_step and node.value in FOLDERS):
                yield f"{path.relative_to(folder)}:{node.lineno}: {node.value}"


def test_no_other_module_spells_a_repositorys_names():
    assert list(spelled_elsewhere(SOURCE)) == []


def test_a_name_spelled_elsewhere_would_be_found(tmp_path):
    """As each of them stood somewhere once."""
    (tmp_path / "module.py").write_text(
        '"""Serves metadata/timestamp.json and blobs/."""\n'
        'a = f"{base}/blobs/sha256/{digest}"\n'
        'b = public / "metadata" / f"{version}.root.json"\n'
        'c = f"{product}.releases"\n'
        'd = f"linux-{machine}"\n'
        'e = f"{product}/channels/{channel}.json"\n'
        'say("there is no timestamp.json here")\n'
    )

    lines = {int(line.split(":")[1]) for line in spelled_elsewhere(tmp_path)}

    assert lines == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        (layout.blob(DIGEST), DIGEST),
        (layout.target_file(layout.channel("acme", "stable"), DIGEST), DIGEST),
        (
            layout.target_file(layout.release("acme", "1", "linux"), DIGEST),
            DIGEST,
        ),
        (f"{layout.METADATA}/{layout.role_file('acme.stable', 7)}", None),
        (f"{layout.METADATA}/{layout.TIMESTAMP}", None),
    ],
)
def test_every_file_is_known_as_one_and_by_its_hash(path, digest):
    assert layout.is_file(path)
    assert layout.digest_in(path) == digest
    assert layout.is_edition(path) == path.startswith("metadata/7.")


def test_a_blob_in_the_wrong_fan_is_no_file_of_a_repository():
    assert not layout.is_file(f"{layout.BLOB_FOLDER}/cd/{DIGEST}")


def test_names_are_read_as_they_are_made():
    path = layout.release("acme", "1.0", "linux-x86_64")

    assert layout.release_of(path) == ("1.0", "linux-x86_64")
    assert layout.edition(layout.role_file("acme.stable", 7), "acme.stable") == 7
    assert layout.edition(layout.role_file("acme.stable", 7), "stable") is None
    assert layout.edition(layout.TIMESTAMP, "timestamp") is None
    assert layout.product_of(layout.releases_role("acme")) == "acme"
    assert layout.product_of(layout.archive_role("acme")) is None
    assert layout.product_of(layout.channel_role("acme", "stable")) is None


def test_what_garbage_collection_may_take_is_of_this_repositorys_making():
    shape = layout.files_of(["root", "timestamp", "acme.stable"], ["acme"])
    pointer = layout.channel("acme", "stable")

    for path in (
        layout.blob(DIGEST),
        layout.target_file(pointer, DIGEST),
        "metadata/timestamp.json",
        "metadata/3.acme.stable.json",
    ):
        assert shape.fullmatch(path), path
    for path in (
        "metadata/3.root.json",
        "metadata/3.other.stable.json",
        layout.target_file(layout.channel("other", "stable"), DIGEST),
        "targets/acme/readme.json",
        "blobs/notes.txt",
    ):
        assert not shape.fullmatch(path), path


def test_a_platform_is_called_the_same_by_publishers_and_machines():
    assert layout.platform("x86_64") == layout.platform("X86_64") == "linux-x86_64"
