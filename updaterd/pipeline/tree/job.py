# SPDX-License-Identifier: Apache-2.0
"""One release to be built, and what was learned on the way."""

from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from updaterd.core.dataclass import dataclass
from updaterd.core.manifest import Entry, Manifest, tree_id
from updaterd.pipeline.run import Run


@dataclass(slots=True, kw_only=True)
class Job:
    """One release to be built, and what was learned on the way.

    Attributes:
        run: the product, and the machine.
        raw: returns the signed bytes of the manifest.
        lend: lets them stand at a path, too, without a copy, if that can be done.
        bases: listings of the trees that a delta may start from, by version.
        have: their tree ids; one that turns out to be damaged is taken out.
        skip: bundles that failed in this run, by sha256.
        continued: entries of half-built trees that an earlier run had made.
        counted: bytes of its bundles that were here when `fetched` was last journalled;
            None: it is new, and what is here others have paid for.
        spoilt: code of the last bundle of which servers had no good copy.
        troubles: what failed, for a person.
    """

    run: Run
    manifest: Manifest
    raw: Callable[[], bytes]
    ident: int
    bases: dict[str, tuple[Entry, ...]]
    lend: Callable[[Path], None] = lambda _: None
    have: dict[str, str] = field(default_factory=dict)
    skip: set[str] = field(default_factory=set)
    continued: int = 0
    spoilt: str = ""
    fetched: int = 0
    counted: int | None = None
    troubles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.have = {name: tree_id(files) for name, files in self.bases.items()}

    @property
    def root(self) -> Path:
        """Return the install root."""
        return self.run.root
