# SPDX-License-Identifier: Apache-2.0
"""Who may sign what: the roles of a new repository, of a new product or channel.

root, targets        2 of the 3 root keys, offline
PRODUCT.releases     the product's release key: PRODUCT/releases/*/*; of a critical
                     product two keys, both of which must sign
PRODUCT.archive      the same key; older releases, so that clients load few
PRODUCT.CHANNEL      online key: PRODUCT/channels/CHANNEL.json
snapshot, timestamp  online key
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    Key,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from updaterd.core import layout
from updaterd.core.names import check_name
from updaterd.errors import BrokenError
from updaterd.release.keychange.edits import Change, delegate, in_turn
from updaterd.release.repository.metadata import Repository
from updaterd.release.workspace import Workspace

ROOT_KEYS, ROOT_THRESHOLD = 3, 2
ONLINE = "online"


def check_channel(channel: str) -> str:
    """Return `channel` when it can be one.

    Raises:
        BrokenError: it is reserved.
    """
    if check_name("channel", channel) in layout.RESERVED:
        raise BrokenError(
            f"a channel cannot be called {channel!r}",
            do="choose another name, for example `stable`",
            code="bad_name",
        )
    return channel


def establish(
    workspace: Workspace,
    products: Sequence[str],
    channels: Sequence[str],
    now: datetime,
    critical: Collection[str] = (),
) -> Repository:
    """Make a repository that delegates to the products' roles, and publish it.

    Args:
        workspace: where it is made.
        products: delegated to from the start.
        channels: of every product.
        now: time of the publication.
        critical: products whose releases need two signatures.

    Returns:
        The repository; as it is, when there already was one.

    Power cut: keys that were made are used by the next run; without a timestamp
    there is no repository yet.
    """
    keyring = workspace.keyring
    root_keys = [
        keyring.ensure(f"root-{number}").public for number in range(1, ROOT_KEYS + 1)
    ]
    online = keyring.ensure(ONLINE).public
    metadata = workspace.metadata
    if not (metadata / layout.role_file("root", 1)).exists():
        repository = Repository(metadata, keyring, now=now, founding=True)
        repository.begin("root", _root(workspace, root_keys, online, now))
        repository.commit_root()
    repository = Repository(metadata, keyring, now=now)
    if "timestamp" in repository.roles:
        return repository
    repository.begin("timestamp", Timestamp(snapshot_meta=MetaFile(1)))
    repository.begin("snapshot", Snapshot(meta={}))
    repository.begin("targets", Targets())
    for product in products:
        change = product_changes(
            workspace, product, channels, critical=product in critical
        )
        change(repository.root, repository.targets())
    delegations = repository.targets().delegations
    for role in (delegations.roles or {}) if delegations else {}:
        repository.begin(role, Targets())
    repository.commit()
    return repository


def _root(
    workspace: Workspace, root_keys: Sequence[Key], online: Key, now: datetime
) -> Root:
    ids = [key.keyid for key in root_keys]
    roles = {
        name: Role(list(ids), ROOT_THRESHOLD)
        if name in {"root", "targets"}
        else Role([online.keyid], 1)
        for name in TOP_LEVEL_ROLE_NAMES
    }
    marks = {"x-updaterd-profile": workspace.settings.profile}
    return Root(
        expires=now,
        keys={key.keyid: key for key in (*root_keys, online)},
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields=marks if workspace.settings.profile == "demo" else {},
    )


def product_changes(
    workspace: Workspace,
    product: str,
    channels: Sequence[str],
    *,
    critical: bool = False,
) -> Change:
    """Return the change that delegates to a product's roles; makes its keys.

    Of a critical product there are two, `release-PRODUCT` and `release-PRODUCT-2`, and
    a release counts when both have signed: one stolen key signs nothing.
    """
    check_name("product", product)
    names = [f"release-{product}", *([f"release-{product}-2"] if critical else [])]
    keys = [workspace.keyring.ensure(name).public for name in names]
    return in_turn(
        *(
            delegate(role, layout.any_release(product), *keys)
            for role in (layout.releases_role(product), layout.archive_role(product))
        ),
        *(channel_changes(workspace, product, channel) for channel in channels),
    )


def channel_changes(workspace: Workspace, product: str, channel: str) -> Change:
    """Return the change that delegates to a channel's role."""
    check_channel(channel)
    return delegate(
        layout.channel_role(product, channel),
        layout.channel(product, channel),
        workspace.keyring.ensure(ONLINE).public,
    )
