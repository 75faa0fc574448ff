# SPDX-License-Identifier: Apache-2.0
"""What proof before signing costs: CPU of building one release, with and without it.

    benchmarks/proof.py OLD_TREE NEW_TREE [--rounds 2]

Builds the release NEW_TREE with a delta from OLD_TREE, as `updaterd release push` does,
into a workspace of its own: bundle, delta, and their proof by the worker's two kinds of
loops (`release/bundles/proof.py`). CPU is that of this process and all its children,
user and system (getrusage); the least of the rounds counts. Signing is left out: it
takes milliseconds.
"""

import argparse
import resource
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from updaterd.core import layout
from updaterd.core.bundle_kinds import FIRST
from updaterd.core.manifest import Manifest
from updaterd.release import build, tree
from updaterd.release.bundles import proof
from updaterd.release.workspace import Settings, Workspace, create

REAL = proof.Prover


class Unproven(proof.Prover):
    """Believes every bundle."""

    def full(self, *_: object) -> None:
        pass

    def delta(self, *_: object) -> None:
        pass


def cpu() -> float:
    return sum(
        sum(resource.getrusage(whose)[:2])
        for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d} {arguments.old.name} -> {arguments.new.name}")
    with tempfile.TemporaryDirectory() as folder:
        platform = layout.platform("x86_64")
        create(Path(folder), Settings(profile="demo", platform=platform))
        space = Workspace(Path(folder))
        before = tree.scan(arguments.old)
        first = build.build(space, arguments.old, before, version="1", previous=())
        old = Manifest(
            product="bench",
            version="1",
            seq=1,
            platform=platform,
            min_updater=FIRST,
            floor_seq=0,
            files=before,
            full=first.full,
            deltas=(),
        )
        files = tree.scan(arguments.new)
        least: dict[str, float] = {}
        for _ in range(arguments.rounds):
            for name, prover in (("with", REAL), ("without", Unproven)):
                build.proof.Prover = prover
                start = cpu()
                built = build.build(
                    space, arguments.new, files, version="2", previous=(old,)
                )
                least[name] = min(least.get(name, 1e9), cpu() - start)
    print(
        f"full {built.full.length:,} bytes, deltas {[d.length for d in built.deltas]}"
    )
    share = 100 * (least["with"] - least["without"]) / least["with"]
    print(
        f"CPU with proof {least['with']:.2f} s, without {least['without']:.2f} s: "
        f"proof is {share:.0f} % of it"
    )


if __name__ == "__main__":
    main()
