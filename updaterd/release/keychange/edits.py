# SPDX-License-Identifier: Apache-2.0
"""What a change of keys does to root and targets; `change` publishes it."""

from collections.abc import Callable
from datetime import timedelta

from tuf.api.metadata import DelegatedRole, Delegations, Key, Root, Targets

Change = Callable[[Root, Targets], None]


def in_turn(*changes: Change) -> Change:
    """Return one change that makes several."""

    def change(root: Root, targets: Targets) -> None:
        for step in changes:
            step(root, targets)

    return change


def renew(*roles: str) -> Change:
    """Return the change that only gives root or targets a new expiry."""

    def change(root: Root, targets: Targets) -> None:
        # the expiry differs, so the file does; the real one is given when signed
        for name, signed in (("root", root), ("targets", targets)):
            if name in roles:
                signed.expires += timedelta(seconds=1)

    return change


def delegate(role: str, path: str, *keys: Key) -> Change:
    """Return the change that lets keys, all of them, sign for targets under a path."""

    def change(_root: Root, targets: Targets) -> None:
        if targets.delegations is None:
            targets.delegations = Delegations(keys={}, roles={})
        roles = targets.delegations.roles
        assert roles is not None
        if role not in roles:
            roles[role] = DelegatedRole(
                role, [], len(keys), terminating=False, paths=[path]
            )
            for key in keys:
                targets.add_key(key, role)

    return change


def replace_key(old: Key, new: Key) -> Change:
    """Return the change that puts a new key wherever the old one may sign."""

    def change(root: Root, targets: Targets) -> None:
        for role in root.roles.values():
            if old.keyid in role.keyids:
                _swap(role.keyids, old.keyid, new.keyid)
                root.keys[new.keyid] = new
        if old.keyid not in _used(root):
            root.keys.pop(old.keyid, None)
        delegations = targets.delegations
        if delegations is None or delegations.roles is None:
            return
        for delegated in delegations.roles.values():
            if old.keyid in delegated.keyids:
                _swap(delegated.keyids, old.keyid, new.keyid)
                delegations.keys[new.keyid] = new
        delegations.keys.pop(old.keyid, None)

    return change


def _swap(keyids: list[str], old: str, new: str) -> None:
    keyids[keyids.index(old)] = new


def _used(root: Root) -> set[str]:
    return {keyid for role in root.roles.values() for keyid in role.keyids}


def add_key(role: str, key: Key, threshold: int | None) -> Change:
    """Return the change that lets a key sign for a role."""

    def change(root: Root, targets: Targets) -> None:
        holder: Root | Targets = root if role in root.roles else targets
        holder.add_key(key, role)
        _set_threshold(root, targets, role, threshold)

    return change


def revoke_key(role: str, keyid: str, threshold: int | None) -> Change:
    """Return the change that ends a key's say in a role."""

    def change(root: Root, targets: Targets) -> None:
        holder: Root | Targets = root if role in root.roles else targets
        holder.revoke_key(keyid, role)
        _set_threshold(root, targets, role, threshold)

    return change


def _set_threshold(
    root: Root, targets: Targets, role: str, threshold: int | None
) -> None:
    if threshold is None:
        return
    delegations = targets.delegations
    if role in root.roles:
        root.roles[role].threshold = threshold
    elif delegations and delegations.roles and role in delegations.roles:
        delegations.roles[role].threshold = threshold
