# SPDX-License-Identifier: Apache-2.0
"""A product in its repository: its releases, and what its channels offer of them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tuf.api.metadata import Metadata, TargetFile, Targets

from updaterd.core import channel as channels
from updaterd.core import layout
from updaterd.core.channel import ChannelPointer, Offer
from updaterd.core.forms import Form
from updaterd.core.json_fields import Fields, encode
from updaterd.core.manifest import Manifest
from updaterd.errors import MalformedError
from updaterd.release.repository import history as histories
from updaterd.release.repository.history import Offered
from updaterd.release.repository.metadata import Repository
from updaterd.release.repository.releases import Releases


class Catalog(Releases):
    """The releases of one product, and its channels; see `Releases`."""

    def add(self, manifest: Manifest) -> None:
        """Enter a release, and move the oldest to the archive.

        One that was withdrawn comes back into no channel: those that offered it once
        forget that. Here, and not when it is withdrawn, which may need no other key
        than those of the channels that it leaves.

        Raises:
            RejectedError: this version exists, or no machine would accept it.

        Power cut: the manifest's file is whole or absent; no role names it yet.
        """
        for channel in self.remembering(manifest.version):
            self.point(self.pointer(channel))
        super().add(manifest)

    def remembering(self, version: str) -> tuple[str, ...]:
        """Return the channels that have to forget a withdrawn release.

        Those that once offered it, and those that do not say what they did: of them it
        is read from earlier editions (`history.replay`).
        """
        if self.find(version) is not None or self.withdrawn(version) is None:
            return ()
        return tuple(name for name in self.channels() if self._remembers(name, version))

    def _remembers(self, channel: str, version: str) -> bool:
        role = self._repository.targets(layout.channel_role(self.product, channel))
        history = histories.read(role.unrecognized_fields.get(histories.FIELD))
        if history is None:
            return bool(role.targets)
        return history.includes(version)

    def pointer(self, channel: str) -> ChannelPointer:
        """Return what a channel offers now; nothing, when it never did.

        Raises:
            BrokenError: there is no such channel.
        """
        return self._pointer_of(
            self._repository.targets(layout.channel_role(self.product, channel)),
            channel,
        )

    def _pointer_of(self, role: Targets, channel: str) -> ChannelPointer:
        path = layout.channel(self.product, channel)
        target = role.targets.get(path)
        if target is None:
            return ChannelPointer(
                product=self.product,
                channel=channel,
                paused=False,
                floor_seq=0,
                releases=(),
            )
        custom = Fields(target.unrecognized_fields["custom"], path)
        return channels.parse_custom(custom, product=self.product, channel=channel)

    def forms(self, channel: str) -> Iterator[Form]:
        """Yield the smaller forms of manifests that a channel names."""
        with suppress(MalformedError):  # no machine takes it either
            for forms in self.pointer(channel).manifests:
                yield from forms.forms

    def offered(self, channel: str) -> Offered:
        """Return what a channel offered so far.

        Raises:
            BrokenError: there is no such channel.
        """
        name = layout.channel_role(self.product, channel)
        role = self._repository.targets(name)
        history = histories.read(role.unrecognized_fields.get(histories.FIELD))
        if history is not None:
            return history
        seqs, made_for = self.releases()
        editions = [
            *self._repository.editions(name),
            *([role] if role.targets else []),
        ]
        pointers = []
        for edition in editions:
            with suppress(MalformedError):  # no machine took it either
                pointers.append(self._pointer_of(edition, channel))
        return histories.replay(pointers, seqs=seqs, made_for=made_for)

    def member(self, channel: str, name: str) -> object:
        """Return what a channel's role says beside its pointer; None: nothing.

        Raises:
            BrokenError: there is no such channel.
        """
        role = self._repository.targets(layout.channel_role(self.product, channel))
        return role.unrecognized_fields.get(name)

    def floor(self, channel: str) -> int:
        """Return the lowest `seq` that a channel's machines may still be sent to."""
        return max(self.pointer(channel).floor_seq, self._said_floor(channel))

    def _said_floor(self, channel: str) -> int:
        """Return the floor that releases have set, as far as their keys count."""
        known = self.offered(channel)
        keyids, threshold = self._repository.authority(self._main)
        counts = len(set(known.floor_keys) & set(keyids)) >= threshold
        return known.floor if counts else 0

    def channels(self) -> tuple[str, ...]:
        """Return the names of the product's channels."""
        prefix = self.product + "."
        return tuple(
            sorted(
                role.removeprefix(prefix)
                for role in self._repository.roles
                if role.startswith(prefix) and role not in {self._main, self._old}
            )
        )

    def point(self, pointer: ChannelPointer) -> None:
        """Enter what a channel offers.

        Raises:
            RejectedError: no machine would accept it.

        Power cut: the pointer's file is whole or absent; no role names it yet.
        """
        custom = pointer.as_custom()
        path = layout.channel(self.product, pointer.channel)
        channels.parse_custom(
            Fields(custom, "the channel"),
            product=self.product,
            channel=pointer.channel,
        )
        history = self._history(pointer)
        target = self._write(path, encode(custom), custom)
        with self._repository.edit(
            layout.channel_role(self.product, pointer.channel)
        ) as role:
            role.targets[path] = target
            role.unrecognized_fields[histories.FIELD] = history.as_member()

    def take(self, role: str, metadata: Metadata[Any], target: TargetFile) -> None:
        """Enter what a channel offers, as its keys have signed it elsewhere.

        Power cut: the pointer's file is whole or absent; no role names it yet.
        """
        self._store(target, encode(target.unrecognized_fields["custom"]))
        self._repository.adopt(role, metadata)

    def _history(self, pointer: ChannelPointer) -> Offered:
        """Return what the channel offered, once it says this, too."""
        seqs, made_for = self.releases()
        channel = pointer.channel
        before: tuple[Offer, ...] = ()
        with suppress(MalformedError):  # signed by others: no machine takes it
            before = self.pointer(channel).releases
        history = histories.after(
            self.offered(channel), pointer, seqs=seqs, made_for=made_for
        )
        standing = {(offer.version, offer.platforms) for offer in before}
        fresh = {
            offer.version
            for offer in pointer.releases
            if (offer.version, offer.platforms) not in standing
        }
        floors = [
            self.manifest(entry).floor_seq
            for entry in self.listed()
            if entry.version in fresh
        ]
        floor = max([self._said_floor(channel), *floors])
        keyids, _ = self._repository.authority(self._main)
        return replace(history, floor=floor, floor_keys=tuple(keyids))


def products(repository: Repository) -> tuple[str, ...]:
    """Return the names of the products that the repository delegates to."""
    names = (layout.product_of(role) for role in repository.roles)
    return tuple(sorted(name for name in names if name))
