# SPDX-License-Identifier: Apache-2.0
"""Which repository a machine follows: told by roots that sign each other."""

from fakes.repository import Publisher


def next_root(publisher: Publisher) -> bytes:
    repository = publisher.open()
    repository.touch("root")
    repository.commit()
    version = repository.root.version
    return (publisher.metadata / f"{version}.root.json").read_bytes()


def test_the_lineage_grows_with_each_root_and_stays_the_same_repository(
    client, publisher
):
    """What was there before is there still, in the same order."""
    (first,) = client.refresh().lineage
    next_root(publisher)
    next_root(publisher)
    assert client.refresh().lineage[0] == first
    assert len(client.refresh().lineage) == 3


def test_a_newer_bootstrap_root_is_linked_to_what_the_cache_knows(client, publisher):
    """Its predecessor is in the cache and signed it: the same repository."""
    before = client.refresh().lineage
    client.bootstrap = next_root(publisher)
    assert client.refresh().lineage[:1] == before


def test_another_repository_shares_nothing(client, tmp_path):
    """The cache still holds our roots; none of them signed theirs."""
    before = client.refresh().lineage
    other = Publisher(tmp_path / "other")
    other.release("9.0.0")
    client.bootstrap = next_root(other)  # version 2, and version 1 in the cache is ours
    client.origin.root = other.public
    assert not set(before) & set(client.refresh().lineage)


def test_signatures_added_to_a_root_make_no_other_repository(client, publisher):
    """The id is of what is signed: a file written differently is the same root."""
    before = client.refresh().lineage
    client.bootstrap = b" " + publisher.bootstrap + b"\n"
    assert client.refresh().lineage == before
