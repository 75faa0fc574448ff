# SPDX-License-Identifier: Apache-2.0
"""What is carried beside the listing describes one tree with it, or is refused."""

import json
from dataclasses import replace

import pytest
from fakes.repository import manifest_of

from updaterd.core import attributes, manifest
from updaterd.core.attributes import Attributes, Folder
from updaterd.core.manifest import File, Full, Link, Manifest
from updaterd.core.special import Special
from updaterd.errors import MalformedError

HASH = "ab" * 32
GOOD = manifest_of(
    "acme",
    "1.0.0",
    1,
    files=(
        File("bin/app", HASH, 10, 0o711),
        Link("bin/link", "app"),
        File("secret", HASH, 0, 0o000),
    ),
    full=Full(sha256=HASH, length=7, unpacked=10, codec="full-1"),
)


def carrying(**more) -> Manifest:
    return replace(GOOD, attributes=Attributes(**more))


def test_what_is_carried_is_read_and_is_no_part_of_the_tree():
    made = carrying(
        folders=(Folder("bin", 0o700), Folder("empty/deep", 0o755)),
        outside=(Link("lib", "/usr/lib"), Link("bin/up", "../../x")),
        special=(Special("bin", 0o1722), Special("secret", 0o6000)),
        times=(1, 2, 3),
    )
    found = manifest.parse(made.encode())
    assert found.attributes.folders == made.attributes.folders
    assert found.attributes.special == made.attributes.special
    assert found.attributes.must_understand == ("outside", "special")
    assert found.attributes.outside == made.attributes.outside
    assert [found.attributes.time_of(place) for place in range(3)] == [1, 2, 3]
    assert found.tree == GOOD.tree
    one = manifest.parse(carrying(times=(5,)).encode())
    assert [one.attributes.time_of(place) for place in range(3)] == [5, 5, 5]


@pytest.mark.parametrize(
    "more",
    [
        {"folders": (Folder("secret", 0o755),)},
        {"folders": (Folder("secret/in", 0o755),)},
        {"folders": (Folder("bin/link/in", 0o755),)},
        {"folders": (Folder("a", 0o755), Folder("a", 0o700))},
        {"folders": (Folder("a", 0o777),)},
        {"folders": (Folder("a", 0o1755),)},
        {"folders": (Folder("a", 0o4755),)},
        {"folders": (Folder("a", 0o000),)},
        {"folders": (Folder("../a", 0o755),)},
        {"folders": (Folder("/a", 0o755),)},
        {"outside": (Link("bin", "/usr"),)},
        {"outside": (Link("secret", "/usr"),)},
        {"outside": (Link("secret/in", "/usr"),)},
        {"outside": (Link("out", "/a"), Link("out", "/b"))},
        {"outside": (Link("out", "/a"), Link("out/in", "/b"))},
        {"outside": (Link("out", "/a"),), "folders": (Folder("out", 0o755),)},
        {"outside": (Link("out", "/a"),), "folders": (Folder("out/in", 0o755),)},
        {"outside": (Link("out", ""),)},
        {"outside": (Link("out", "/a\x9bb"),)},
        {"outside": (Link("../out", "/a"),)},
        {"special": (Special("secret", 0o000),)},
        {"special": (Special("bin/app", 0o4755),)},  # it is listed as 0711
        {"special": (Special("bin/link", 0o4755),)},
        {"special": (Special("nowhere", 0o4755),)},
        {"special": (Special("secret", 0o4000), Special("secret", 0o2000))},
        {"times": (1, 2)},
        {"times": (1, 2, 3, 4)},
        {"times": (1, -2, 3)},
        {"times": (1, 2**40, 3)},
        {"times": (1, True, 3)},
        {"times": (1, "2", 3)},
    ],
    ids=repr,
)
def test_what_cannot_be_one_tree_is_refused(more):
    with pytest.raises(MalformedError):
        manifest.parse(carrying(**more).encode())


@pytest.mark.parametrize("target", ["lib/../etc/passwd", "lib", "lib/x", "l2/x"])
def test_no_link_may_lead_through_one_to_the_outside(target):
    """By the listing alone `lib/../etc` is in the tree; on the disk it is not."""
    links = (Link("evil", target), Link("l2", "lib"), Link("lib2", "bin"))
    made = carrying(outside=(Link("lib", "/usr/lib"),))
    made = replace(made, files=(*made.files, *links))
    with pytest.raises(MalformedError, match="leads"):
        manifest.parse(made.encode())


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/usr/bin/python3", ["/usr/bin/python3"]),
        ("/usr//bin/./python3", ["/usr/bin"]),
        ("../../../data", ["/opt/acme/data"]),
    ],
)
def test_where_an_owner_lets_links_lead(target, allowed):
    link = Link("bin/to", target)
    assert attributes.not_allowed([link], "/opt/acme/releases/1", allowed) is None
    found = attributes.not_allowed([link], "/opt/acme/releases/1", ["/usr/share"])
    assert found
    assert found[0] == link


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "/usr/bin2",
        "/usr/bin/../../etc/passwd",
        "a/../../../../x",
        "/usr",
    ],
)
def test_where_they_do_not(target):
    found = attributes.not_allowed(
        [Link("to", target)], "/opt/acme/releases/1", ["/usr/bin", "/opt/acme/x"]
    )
    assert found is not None


def test_an_updaterd_of_before_reads_what_it_may_ignore():
    document = json.loads(carrying(folders=(Folder("e", 0o755),), times=(1,)).encode())
    assert 1 == document["schema"]
    for name in ("folders", "times"):
        del document[name]
    assert manifest.parse(json.dumps(document).encode()) == GOOD
