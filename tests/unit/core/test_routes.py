# SPDX-License-Identifier: Apache-2.0
"""The cheapest route is found, whatever the edges."""

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.bundle_kinds import BSDIFF
from updaterd.core.manifest import Delta, File, Full, Manifest
from updaterd.core.routes import (
    CODECS,
    FULL_MEMORY,
    beyond,
    choose_route,
    codec_names,
    cost,
)
from updaterd.errors import RejectedError

FILES = (File("a", "1" * 64, 1, 0o644),)


def _manifest(full: int, deltas: tuple[Delta, ...]) -> Manifest:
    return Manifest(
        product="p",
        version="9",
        seq=9,
        platform="x",
        min_updater="0",
        floor_seq=0,
        files=FILES,
        full=Full(sha256="f" * 64, length=full, unpacked=1, codec="full1+xz"),
        deltas=deltas,
    )


TARGET = _manifest(1, ()).tree
TREES = [f"{n}" * 64 for n in range(4)] + [TARGET]
EDGE = st.builds(
    Delta,
    from_version=st.just("a"),
    from_tree=st.sampled_from(TREES),
    to_version=st.just("b"),
    to_tree=st.sampled_from(TREES),
    sha256=st.integers(0, 2**40).map(lambda n: f"{n:064x}"),
    length=st.integers(1, 40),
    codec=st.sampled_from(["delta1+xz", "delta2+zstd", BSDIFF, "delta9"]),
    memory=st.integers(0, 2 * FULL_MEMORY * 1024),
)
HAVE = st.dictionaries(
    st.sampled_from(["1", "2", "3"]), st.sampled_from(TREES), max_size=3
)


def _brute(edges, have, codecs, skip):
    """Return the least cost over every sequence of edges without a repeat.

    And what each of these weighs against a full bundle.
    """
    usable = [
        e
        for e in edges
        if e.codec in codecs
        and e.sha256 not in skip
        and (e.codec != BSDIFF or e.to_tree == TARGET)
    ]
    costs = []
    for count in range(1, 5):
        for steps in permutations(usable, count):
            chained = all(a.to_tree == b.from_tree for a, b in pairwise(steps))
            starts = steps[0].from_tree in set(have.values()) - {TARGET}
            if chained and starts and steps[-1].to_tree == TARGET:
                costs.append((sum(map(cost, steps)), beyond(steps)))
    best = min((total for total, _ in costs), default=None)
    return best, {weight for total, weight in costs if total == best}


@given(
    st.integers(1, 90),
    st.lists(EDGE, max_size=6).map(tuple),
    HAVE,
    st.sets(st.sampled_from(["bz2", "xz", "zstd"])).map(frozenset),
    st.integers(0, 2),
)
def test_no_route_is_cheaper(full, edges, have, compressions, failed):
    """Against brute force: same cost, or full when that is not dearer."""
    codecs = codec_names(compressions)
    skip = frozenset(edge.sha256 for edge in edges[:failed])
    manifest = _manifest(full, edges)
    best, weights = _brute(edges, have, codecs, skip)
    if best is None and "full1+xz" not in codecs:
        with pytest.raises(RejectedError):
            choose_route(manifest, have=have, codecs=codecs, skip=skip)
        return

    path = choose_route(manifest, have=have, codecs=codecs, skip=skip)

    if path.kind == "full":
        assert (manifest.full,) == path.steps
        assert best is None or max(weights) >= full
    else:
        assert best == sum(map(cost, path.steps))
        assert path.steps[0].from_tree == have[path.start]
        assert path.bytes == sum(step.length for step in path.steps)
        assert min(weights) < full or "full1+xz" not in codecs


def test_fallback_goes_path_by_path_to_full_and_ends():
    """Whoever adds each failed bundle to `skip` gets another until none is left."""
    edges = tuple(
        Delta(
            from_version="1",
            from_tree=TREES[0],
            to_version="9",
            to_tree=TARGET,
            sha256=f"{n:064x}",
            length=10 + n,
            codec="delta1+xz",
            memory=0,
        )
        for n in range(3)
    )
    manifest, skip, seen = _manifest(90, edges), frozenset(), []
    for _ in range(4):
        path = choose_route(manifest, have={"1": TREES[0]}, codecs=CODECS, skip=skip)
        seen.append(path.steps[0].sha256)
        assert path.alternatives or path.kind == "full"
        skip |= {path.steps[0].sha256}

    assert [*(e.sha256 for e in edges), "f" * 64] == seen
    with pytest.raises(RejectedError) as caught:
        choose_route(manifest, have={"1": TREES[0]}, codecs=CODECS, skip=skip)
    assert "no_usable_bundle" == caught.value.code


def test_memory_a_machine_does_not_have_rules_an_edge_out():
    """The signed memory of an edge is a limit, not a hint."""
    edge = Delta(
        from_version="1",
        from_tree=TREES[0],
        to_version="9",
        to_tree=TARGET,
        sha256="a" * 64,
        length=1,
        codec="delta1",
        memory=2000,
    )
    manifest, have = _manifest(90, (edge,)), {"1": TREES[0]}

    assert "delta" == choose_route(manifest, have=have, codecs=CODECS).kind
    less = choose_route(manifest, have=have, codecs=CODECS, memory=1999)
    assert "full" == less.kind


HAVE_ONE = {"1.0": TREES[0]}


def _edge(
    number: int, length: int, *, codec="delta1+xz", memory=0, start=0, end=TARGET
):
    return Delta(
        from_version="1.0",
        from_tree=TREES[start],
        to_version="9",
        to_tree=end,
        sha256=f"{number:064x}",
        length=length,
        codec=codec,
        memory=memory,
    )


def _why(full: int, *edges: Delta, skip=(), memory=None, have=None) -> str:
    """Return why the full bundle was chosen, in words."""
    path = choose_route(
        _manifest(full, edges),
        have=HAVE_ONE if have is None else have,
        codecs=frozenset({"full1+xz", "delta1+xz"}),
        skip=frozenset(f"{number:064x}" for number in skip),
        memory=memory,
    )
    assert "full" == path.kind
    assert path.reason.startswith(f"{path.name}; ")
    return path.reason.partition("; ")[2]


class TestTheWordsOfTheChoice:
    """They are the choice's own: no other reason is given than the one that it had."""

    def test_no_delta_is_for_this_machine(self):
        expected = "no delta starts from a tree on disk"
        assert expected == _why(90, _edge(1, 10), have={})
        assert expected == _why(90)

    def test_full_is_the_smallest(self):
        assert "no delta is smaller" == _why(90, _edge(1, 90), _edge(2, 100, start=1))

    def test_delta_that_failed_is_said_to_have_failed(self):
        said = _why(90, _edge(1, 10), skip=(1,))

        assert "delta 1.0 -> 9, 10 B: it failed" == said

    def test_delta_in_a_format_of_tomorrow(self):
        said = _why(90, _edge(1, 10, codec="delta9"))

        assert "it is in a format (delta9) that cannot be read here" in said

    def test_delta_for_more_memory_than_there_is(self):
        said = _why(90, _edge(1, 10, memory=64 * 2**20), memory=2**20)

        assert "it needs 64.0 MiB of memory, more than it may" in said

    def test_small_delta_that_is_passed_over_for_its_memory(self):
        """133 B were passed over for 14 KB, and no delta was said to be smaller."""
        said = _why(14_000, _edge(1, 133, memory=64 * 2**20))

        assert said.startswith("delta 1.0 -> 9, 133 B, asks for memory")
        assert "16384 B more" in said

    def test_small_delta_that_takes_no_more_than_the_full_bundle_is_taken(self):
        """Of a tree of 14 KB: both are opened within the same 48 MiB."""
        edge = _edge(1, 133, memory=48 * 2**20)
        manifest = _manifest(14_000, (edge,))

        path = choose_route(manifest, have=HAVE_ONE, codecs=CODECS)

        assert (edge,) == path.steps

    def test_step_on_the_way_is_named(self):
        first = _edge(1, 10, end=TREES[1])
        last = _edge(2, 10, start=1)

        assert "its step to 9 failed" in _why(90, first, last, skip=(2,))

    def test_full_bundle_that_failed_is_not_called_unreadable(self):
        path = choose_route(
            _manifest(90, (_edge(1, 100),)),
            have=HAVE_ONE,
            codecs=frozenset({"full1+xz", "delta1+xz"}),
            skip=frozenset({"f" * 64}),
        )

        assert "delta 1.0 -> 9, 100 B; full failed" == path.reason
