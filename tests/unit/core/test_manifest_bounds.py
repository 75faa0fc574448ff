# SPDX-License-Identifier: Apache-2.0
"""A manifest costs little memory to read, whatever a stolen key signs in it."""

import json
import subprocess
import sys

import pytest
from fakes.repository import manifest_of

from updaterd.core import json_window, manifest, tree
from updaterd.core.manifest import File, Full, Link
from updaterd.errors import MalformedError

HASH = "ab" * 32
GOOD = manifest_of(
    "acme",
    "1.0.0",
    1,
    files=(File("bin/app", HASH, 10, 0o755),),
    full=Full(sha256=HASH, length=7, unpacked=10, codec="full-1"),
)
MORE = 50 * 10**6
"""Bytes that a worker may take beyond what it is without the manifest."""
BEFORE = GOOD.encode()[:-2]  # the object, still open

READ = """
import os, re, sys
from updaterd.core import manifest
from updaterd.errors import UpdaterError

def peak():
    said = open("/proc/self/status").read()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", said)[1])

fd = os.open(sys.argv[1], os.O_RDONLY)
before, said = peak(), "read"
try:
    found = manifest.read(lambda at, n: os.pread(fd, n, at), os.fstat(fd).st_size)
    said = f"{len(found.files)} entries"
except UpdaterError as error:
    said = error.code
print(peak() - before, said)
"""


def cost(tmp_path, raw: bytes) -> tuple[int, str]:
    """Return how much memory a process takes to read it, and what became of it."""
    (tmp_path / "manifest").write_bytes(raw)
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ, tmp_path / "manifest"],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, said = done.stdout.split(maxsplit=1)
    return int(grown), said.strip()


def filled(item: bytes, begin: bytes, end: bytes = b"]}\n") -> bytes:
    """Return the largest manifest that there may be, full of this."""
    room = manifest.MAX_BYTES - len(begin) - len(end) - len(item)
    return begin + (item + b",") * (room // (len(item) + 1)) + item + end


def listed(entries) -> bytes:
    document = json.loads(GOOD.encode())
    document["files"] += entries
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def chain(number: int) -> str:
    return "x" * 200 + f"/{'y' * 190}{number}"


BOMBS = {
    "objects that nobody knows": lambda: filled(b"{}", BEFORE + b',"zzz":['),
    "a string that nobody knows": lambda: filled(b"a" * 10**6, BEFORE + b',"zzz":"')[
        :-3
    ]
    + b'"}\n',
    "strings that nobody knows": lambda: filled(
        b'"' + b"a" * 60000 + b'"', BEFORE + b',"zzz":['
    ),
    "a small member that is large": lambda: filled(
        b"[1]", BEFORE.replace(b'"full":{', b'"full":{"zzz":[') + b',"a":['
    ),
    "edges full of junk": lambda: filled(
        b'{"a":["' + b"x" * 60000 + b'"]}', b'{"deltas":['
    ),
    "files full of junk": lambda: filled(
        b'{"a":["' + b"x" * 60000 + b'"]}', b'{"files":['
    ),
    "more links than a tree may have": lambda: listed(
        {"path": f"l/{n}", "symlink": "../bin/app"} for n in range(131_073)
    ),
    "names of characters that take four bytes": lambda: listed(
        {"path": f"{n}\N{GRINNING FACE}" + "/" + "n" * 200 + "/" + "m" * 200,
         "symlink": "a"}
        for n in range(25_000)
    ),
    "links that lead far": lambda: listed(
        [{"path": "l", "symlink": "/".join(["x" * 200] * 4)}]
        + [{"path": f"l{n}", "symlink": f"l/{n}"} for n in range(100_000)]
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_manifest_made_to_take_memory(tmp_path, name):
    raw = BOMBS[name]()
    assert len(raw) <= manifest.MAX_BYTES

    grown, said = cost(tmp_path, raw)

    assert grown < MORE, (name, grown, said)
    assert said in {"too_large", "malformed", "1 entries"}  # what is ignored is read


@pytest.mark.slow
def test_a_tree_of_a_hundred_thousand_files(tmp_path):
    raw = listed(
        {
            "path": f"lib/python3/site-packages/package{n % 900}/module_{n:06}.py",
            "sha256": f"{n:064x}",
            "length": 0,
            "mode": 0o644,
        }
        for n in range(100_000)
    )

    grown, said = cost(tmp_path, raw)

    assert "100001 entries" == said
    assert grown < MORE, grown


@pytest.mark.slow
def test_a_hundred_thousand_links(tmp_path):
    raw = listed(
        {"path": f"usr/lib/libsomething{n}.so", "symlink": f"libsomething{n}.so.1"}
        for n in range(100_000)
    )

    grown, said = cost(tmp_path, raw)

    assert "100001 entries" == said
    assert grown < MORE, grown


@pytest.mark.parametrize(
    "value",
    ['"x"', "1.5", "null", "[]", "{}", '[{"a":[1,"]}",{"b":"\\"}"}]},[]]', '"é😀"'],
)
def test_what_nobody_knows_is_passed_over(value):
    raw = GOOD.encode().replace(
        b'{"deltas"', b'{"aaa":' + value.encode() + b',"deltas"'
    )
    assert manifest.parse(raw) == GOOD
    assert manifest.parse(raw[:-2] + b',"zzz":' + value.encode() + b"}\n") == GOOD


@pytest.mark.parametrize(
    "value", ["[", "[}", "[1", '["a]', "{]", "[" * 40 + "]" * 40, "nul", "NaN", ""]
)
def test_what_nobody_knows_must_end(value):
    with pytest.raises(MalformedError):
        manifest.parse(GOOD.encode()[:-2] + b',"zzz":' + value.encode() + b"}")


def test_a_value_may_lie_across_any_border_of_the_window():
    """Spaces move everything by one byte, and by a few thousand."""
    for space in (0, 1, 7, json_window.MAX_VALUE - 3, 3 * json_window.MAX_VALUE - 100):
        raw = b" " * space + GOOD.encode()
        assert manifest.parse(raw) == GOOD
    long = "é" * 30000
    for space in range(12):
        raw = (
            GOOD.encode()[:-2]
            + (' ,"zzz":[' + " " * space + (f'"{long}",' * 9) + "1]}").encode()
        )
        assert manifest.parse(raw) == GOOD


def test_bytes_that_are_no_text():
    with pytest.raises(MalformedError, match="UTF-8"):
        manifest.parse(GOOD.encode().replace(b"app", b"\xff\xfe\xfd"))
    with pytest.raises(MalformedError):
        manifest.parse(GOOD.encode() + b"{}")
    with pytest.raises(MalformedError, match="occurs twice"):
        manifest.parse(GOOD.encode()[:-2] + b',"seq":2}')


@pytest.mark.slow
def test_the_publisher_is_told_what_machines_could_not_read():
    files = [
        Link("d" * 200 + f"/{'e' * 200}/{number}", "x") for number in range(100_000)
    ]
    with pytest.raises(MalformedError, match="memory"):
        tree.check_tree(files)


# -- documents that a newer publisher signs


def changed(**members) -> bytes:
    return json.dumps(json.loads(GOOD.encode()) | members, sort_keys=True).encode()


def test_a_member_that_must_be_understood_and_is_not():
    """Whatever else looks wrong to an updaterd that does not know it."""
    raw = changed(schema=2, must_understand=["zzz"], zzz=1, files=[{"novel": True}])
    with pytest.raises(manifest.NotUnderstoodError, match="'zzz'") as caught:
        manifest.parse(raw)
    assert "not_understood" == caught.value.code


def test_a_member_that_must_be_understood_and_is():
    found = manifest.parse(changed(schema=2, must_understand=["floor_seq"]))
    assert ("floor_seq",) == found.must_understand
    assert manifest.parse(found.encode()) == found


def test_what_must_be_understood_is_marked_for_who_does_not_know_of_it():
    """An updaterd of before reads schema 1 only, and ignores `must_understand`."""
    made = manifest.replace(GOOD, must_understand=("seq",))
    assert 2 == json.loads(made.encode())["schema"]
    assert 1 == json.loads(GOOD.encode())["schema"]
    assert "must_understand" not in json.loads(GOOD.encode())


@pytest.mark.parametrize("names", ["zzz", [1], [["a"]], ["a"] * 65, ["a" * 300]])
def test_a_list_of_names_that_is_none(names):
    with pytest.raises(MalformedError) as caught:
        manifest.parse(changed(schema=2, must_understand=names))
    assert "malformed" == caught.value.code
