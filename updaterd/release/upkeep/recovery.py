# SPDX-License-Identifier: Apache-2.0
"""Going on from a backup: versions, places and labels jump past what is out.

What was published since is gone from here, and machines have it. They take nothing of
a lower version, nothing of a lower `seq` as newer, and no label on other contents. So
what is signed from now on is made newer than all that is out, by a margin for what
nobody can see any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tuf.api.metadata import Metadata, TargetFile, Targets

from updaterd import durable
from updaterd.core import layout
from updaterd.core.json_fields import MAX_INTEGER
from updaterd.errors import RejectedError, UpdaterError
from updaterd.release.repository import labels
from updaterd.release.repository.catalog import Catalog, products
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.releases import LAST_SEQ, SEQ
from updaterd.release.upkeep.outside import Out, Served
from updaterd.release.workspace import Workspace

AHEAD = 1000
"""Versions and places that are left out for what nobody can see any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a recovery does.

    Attributes:
        roles: role -> version it goes on from.
        seqs: product -> highest place taken.
        lost: releases that are out and not here: product, version.
        notes: what cannot be known.
    """

    roles: dict[str, int]
    seqs: dict[str, int]
    lost: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def take_roots(workspace: Workspace, out: Out) -> int:
    """Take newer roots from what is out; return how many.

    Power cut: some of them are there, from the oldest on.
    """
    for root in out.roots:
        path = workspace.metadata / layout.role_file("root", root.signed.version)
        durable.write_file(path, root.to_bytes(), mode=0o644)
    return len(out.roots)


def jump(
    workspace: Workspace,
    repository: Repository,
    served: Served | None,
    out: Out | None,
    *,
    ahead: int = AHEAD,
) -> Recovered:
    """Make the repository newer than what is out; unsigned as yet.

    Args:
        workspace: where it is.
        repository: as restored; its root is as new as what is out.
        served: where more can be asked; None: nowhere.
        out: what is out; None: nobody knows. Then the time counts: there was no
            publication in every millisecond, so milliseconds since 1970 are past them
            all, also past those after an earlier recovery from the same backup, once
            as many milliseconds as its margin have passed. In seconds that would
            take a quarter of an hour.
        ahead: the margin.

    Raises:
        TransientError: what is out of the delegations cannot be had.
        ForeignError: or was not signed by this repository's keys.
        RejectedError: a version or seq would be larger than machines can read.
    """
    versions = dict(out.versions) if out is not None else {}
    least = int(repository.now.timestamp() * 1000) if out is None else 0
    if served is not None and versions.get("targets", 0) > repository.targets().version:
        metadata = served.role("targets", versions["targets"], repository.root)
        repository.adopt("targets", metadata)
    notes: list[str] = []
    lost: list[tuple[str, str]] = []
    served_roles: dict[str, Targets] = {}
    for role in [name for name in versions if "." in name]:
        if served is None:
            break
        try:
            role_metadata = served.role(role, versions[role], repository.targets())
        except UpdaterError as error:
            notes.append(f"{role} as it is out cannot be had: {error.cause}")
            continue
        served_roles[role] = role_metadata.signed
        if role not in repository.roles:  # delegated to since the backup
            repository.roles[role] = Metadata(role_metadata.signed)
    seqs = {}
    for product in products(repository):
        catalog = Catalog(repository, workspace.public, product)
        seqs[product] = _jump_seq(
            repository, catalog, served_roles, least=least, ahead=ahead
        )
        for version, places in _unknown(catalog, served_roles):
            lost.append((product, version))
            trees = [(target.path, served.tree(target)) for target in places if served]
            named = [(layout.release_of(path)[1], tree) for path, tree in trees]
            _remember(repository, catalog, version, places[0], named)
    jumped = {}
    for role, metadata in repository.roles.items():
        if role in {"root", "targets"}:
            continue  # their versions are their signers' to count
        known = max(metadata.signed.version, versions.get(role, 0), least)
        metadata.signed.version = _past(role, known, ahead, MAX_INTEGER)
        repository.touch(role)
        jumped[role] = metadata.signed.version
    return Recovered(roles=jumped, seqs=seqs, lost=tuple(lost), notes=tuple(notes))


def _jump_seq(
    repository: Repository,
    catalog: Catalog,
    served_roles: dict[str, Targets],
    *,
    least: int,
    ahead: int,
) -> int:
    main = layout.releases_role(catalog.product)
    highest = max(catalog.next_seq() - 1, least)
    for role in (main, layout.archive_role(catalog.product)):
        served_role = served_roles.get(role)
        if served_role is None:
            continue
        noted = int(served_role.unrecognized_fields.get(SEQ, 0))
        listed = [
            _seq(target.unrecognized_fields) for target in served_role.targets.values()
        ]
        every = [seq for seq in (noted, *listed) if seq < LAST_SEQ]
        highest = max([highest, *every])
    last = _past(f"the seq of {catalog.product}", highest, ahead, LAST_SEQ - 1)
    with repository.edit(main) as role_here:
        role_here.unrecognized_fields[SEQ] = last
    return last


def _past(name: str, known: int, ahead: int, most: int) -> int:
    """Return a number past what is known.

    Raises:
        RejectedError: there is no such number.
    """
    if known + ahead < most:
        return known + ahead
    raise RejectedError(
        f"{name} is {known}: {ahead} further, no number is left for later ones",
        means="nothing was changed",
        do=f"use --ahead with less than {most - known}"
        if known + 1 < most
        else "a stolen key may have signed it: publisher.md says how keys are replaced",
        code="numbers_exhausted",
    )


def _seq(fields: dict[str, object]) -> int:
    custom = fields.get("custom")
    return int(custom.get("seq", 0)) if isinstance(custom, dict) else 0


def _unknown(
    catalog: Catalog, served_roles: dict[str, Targets]
) -> Iterator[tuple[str, list[TargetFile]]]:
    """Yield the releases that are out and not here: version, its targets."""
    unknown: dict[str, list[TargetFile]] = {}
    product = catalog.product
    for role in (layout.releases_role(product), layout.archive_role(product)):
        served_role = served_roles.get(role)
        for path, target in (served_role.targets if served_role else {}).items():
            version, platform = layout.release_of(path)
            if catalog.find(version, platform) is None:
                unknown.setdefault(version, []).append(target)
    yield from unknown.items()


def _remember(
    repository: Repository,
    catalog: Catalog,
    version: str,
    first: TargetFile,
    trees: list[tuple[str, str]],
) -> None:
    """Keep a label that is out from being given to other contents."""
    known = catalog.find(version)
    seq = known.seq if known else _seq(first.unrecognized_fields)
    with repository.edit(layout.archive_role(catalog.product)) as role:
        role.unrecognized_fields[labels.FIELD] = labels.remembering(
            role.unrecognized_fields.get(labels.FIELD), version, seq, trees
        )
