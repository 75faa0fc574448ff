# SPDX-License-Identifier: Apache-2.0
"""What is published, for those who build and sign away from the repository."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root

    from updaterd.release.handover.making import Fetch
    from updaterd.release.handover.state import Source


def add_from(parser: argparse.ArgumentParser, more: str) -> None:
    """Declare where what is published is seen."""
    group = parser.add_argument_group("what is published")
    group.add_argument(
        "--from",
        dest="source",
        metavar="URL|DIR",
        help=f"address or copy of public/ {more}",
    )
    group.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="PEM with the address's own CA"
    )


def add_repo(parser: argparse.ArgumentParser) -> None:
    """Declare where a workspace is that needs no key."""
    parser.add_argument(
        "--repo",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="workspace, with or without keys, where --from names none (default: "
        "this one)",
    )


@contextmanager
def source(
    arguments: argparse.Namespace, public: Path
) -> "Iterator[tuple[Source, Fetch]]":
    """Yield where what is published is seen, and what gets its bundles."""
    from updaterd.release.handover import making, state

    location = arguments.source
    if location is None or "://" not in location:
        folder = public if location is None else Path(location)
        yield state.Folder(folder), making.blob_from(folder)
        return
    from updaterd.net import Fetcher
    from updaterd.net.blobs import fetch_blob

    with Fetcher(ca_file=arguments.ca_file) as fetcher:

        def fetch(digest: str, length: int, out: Path) -> None:
            # A blob's place is called by its hash, as here.
            fetch_blob(fetcher, (location,), digest, length, into=out.parent)

        yield state.Address(fetcher, location), fetch


def trusted(arguments: argparse.Namespace, public: Path) -> "Metadata[Root]":
    """Return the root that vouches for what is published.

    Raises:
        BrokenError: there is none.
    """
    from updaterd.core import layout
    from updaterd.errors import BrokenError
    from updaterd.release.handover import state

    if getattr(arguments, "root", None) is not None:
        return state.root_from(arguments.root)
    if arguments.source is not None and "://" in arguments.source:
        raise BrokenError(
            f"no root vouches for what {arguments.source} serves",
            means="anybody in between could say what is published",
            do="--root FILE, with the repository's 1.root.json",
            code="bad_root",
        )
    folder = public if arguments.source is None else Path(arguments.source)
    return state.root_from(folder / layout.METADATA / layout.role_file("root", 1))
