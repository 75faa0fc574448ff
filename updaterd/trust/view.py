# SPDX-License-Identifier: Apache-2.0
"""The repository at one moment: what the channels offer, what the releases are.

Every target says itself what it is (product, channel, version, platform), and is
believed only where that is what was asked for.
"""

from collections.abc import Mapping

from tuf.api.metadata import TargetFile

from updaterd.core import channel as channels
from updaterd.core import layout
from updaterd.core import manifest as manifests
from updaterd.core.channel import ChannelPointer
from updaterd.core.forms import Form
from updaterd.core.json_fields import Fields
from updaterd.core.manifest import Manifest
from updaterd.core.names import check_name, check_version
from updaterd.core.words import ROOT, TARGETS, TIMESTAMP, Speakers, Word
from updaterd.errors import MalformedError, RejectedError, TransientError
from updaterd.trust.cache import Store
from updaterd.trust.clock import Notice, signed_at
from updaterd.trust.failures import explain
from updaterd.trust.roles import Role
from updaterd.trust.signed import Signed
from updaterd.trust.updater import Engine, Source


class Lookup(Engine):
    """An engine whose lookups raise our errors."""

    def find(self, path: str) -> TargetFile | None:
        """Return the target, loading the roles that lead to it; None: nobody signed it.

        Raises:
            UpdaterError: they cannot be fetched or verified.
            explain: one of these.
        """
        source = self._fetcher
        try:
            return self.get_targetinfo(path)
        except Exception as error:
            name = source.name if isinstance(source, Source) else path
            raise explain(error, name=name) from error


class View:
    """The repository at one moment: consistent, verified, not expired.

    Attributes:
        warnings: `stale_mirror`, `clock_suspect`.
        lineage: ids of the roots that lead to the newest, oldest first: which
            repository this is, whatever its address.
    """

    def __init__(
        self,
        *,
        engine: Lookup,
        store: Store,
        warnings: tuple[Notice, ...],
        lineage: tuple[str, ...],
    ) -> None:
        self._engine = engine
        self._store = store
        self._read_as = ("", "", "")
        self._read: Manifest | None = None  # the last one: it is asked for twice
        self._forms: dict[str, tuple[Form, ...]] = {}  # by hash, as a channel says
        self.warnings = warnings
        self.lineage = lineage

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return the roles that were needed so far."""
        return self._engine.roles()

    @property
    def root_version(self) -> int:
        """Return the version of the root that is trusted."""
        return self._engine.root.version

    @property
    def speakers(self) -> Mapping[str, Speakers]:
        """Return who may speak for each role."""
        return self._engine.speakers()

    def words(self, product: str, channel: str) -> tuple[Word, ...]:
        """Return what no later answer may go behind, and who said it.

        A machine that remembers the highest versions it acted on notices a replay
        even when its cache was lost. A new root starts them anew, which is how a
        stolen online key that counted up to 2^31 is got rid of.

        Raises:
            TransientError: as `channel`.
            MalformedError: as `channel`.
        """
        pointer = self.channel(product, channel)
        floor = pointer.floor_seq if pointer.releases else 0
        time = signed_at(self._engine.timestamp)
        root = self.root_version
        return (
            Word(role=ROOT, root_version=root, version=root, keys=frozenset()),
            self._word(TARGETS),
            self._word(TIMESTAMP, time=time),
            self._word(layout.channel_role(product, channel), floor=floor),
        )

    def word(self, manifest: Manifest) -> Word:
        """Return what a release says beyond itself: its floor."""
        path = layout.release(manifest.product, manifest.version, manifest.platform)
        role = layout.releases_role(manifest.product)
        if not self._engine.lists(role, path):
            role = layout.archive_role(manifest.product)
        return self._word(role, floor=manifest.floor_seq)

    def _word(self, role: str, *, floor: int = 0, time: float = 0.0) -> Word:
        known = self._engine.role(role)
        return Word(
            role=role,
            root_version=self.root_version,
            version=known.version if known else 0,
            keys=self._engine.signers(role),
            floor=floor,
            time=time,
        )

    def channel(self, product: str, channel: str) -> ChannelPointer:
        """Return what a channel offers.

        Raises:
            TransientError: there is no such channel (yet), or its role cannot be
                fetched or verified.
            MalformedError: signed, but not a pointer, or another channel's.
            NotUnderstoodError: signed for a newer updaterd.
        """
        check_name("product", product)
        check_name("channel", channel)
        path = layout.channel(product, channel)
        target = self._find(path)
        if target is None:
            raise TransientError(
                f"the repository has no channel {channel!r} of {product!r}",
                means="nothing was published there yet, or the name is wrong",
                do="check `channel` in the configuration",
                code="no_such_channel",
            )
        pointer = channels.parse_custom(
            _custom(target, path), product=product, channel=channel
        )
        self._forms |= {forms.sha256: forms.forms for forms in pointer.manifests}
        return pointer

    def platforms(self, product: str, version: str, platform: str) -> tuple[str, ...]:
        """Return the platforms that a release was made for, sorted.

        Args:
            product: its product.
            version: its label.
            platform: asked for first: more is loaded only where it is not listed.

        Raises:
            TransientError: the roles cannot be fetched or verified now.
        """
        if self._find(layout.release(product, version, platform)) is not None:
            return (platform,)
        folder = layout.release_folder(product, version)
        roles = (layout.releases_role(product), layout.archive_role(product))
        paths = (path for role in roles for path in self._engine.listing(role))
        return tuple(
            sorted(
                layout.stem(path.removeprefix(folder))
                for path in paths
                if path.startswith(folder)
            )
        )

    def manifest(self, product: str, version: str, platform: str) -> Manifest:
        """Return what a release is on a platform.

        Raises:
            TransientError: it cannot be fetched or verified now.
            RejectedError: there is no such release for the platform.
            MalformedError: signed, but not a manifest, or another release's.
            NotUnderstoodError: signed for a newer updaterd.
        """
        names = (product, version, platform)
        if self._read is not None and names == self._read_as:
            return self._read
        signed = self.signed(product, version, platform)
        where = f"manifest of {product} {version} for {platform}"
        manifest = manifests.read(signed.read, signed.length, where=where)
        if (manifest.product, manifest.version, manifest.platform) != names:
            raise MalformedError(
                f"{where} says it is {manifest.product} {manifest.version} for "
                f"{manifest.platform}",
                code="wrong_target",
            )
        self._read_as, self._read = names, manifest
        return manifest

    def signed(self, product: str, version: str, platform: str) -> Signed:
        """Return the signed bytes of a manifest, not in memory.

        Raises:
            TransientError: they cannot be fetched or verified now.
            RejectedError: there is no such release for the platform.
        """
        check_name("product", product)
        check_version(version)
        check_name("platform", platform)
        target = self._find(layout.release(product, version, platform))
        if target is None:
            raise RejectedError(
                f"there is no release {version} of {product} for {platform}",
                means="the channel points to it, but no release key signed it",
                do="whoever publishes must add it for this platform",
                code="no_such_release",
            )
        forms = self._forms.get(target.hashes.get("sha256", ""), ())
        with self._store.locked():
            return self._store.fetch_target(
                target, limit=manifests.MAX_BYTES, forms=forms
            )

    def _find(self, path: str) -> TargetFile | None:
        with self._store.locked():
            return self._engine.find(path)


def _custom(target: TargetFile, path: str) -> Fields:
    custom = target.unrecognized_fields.get("custom")
    if not isinstance(custom, dict):
        raise MalformedError(f"{path} has no `custom` object")
    return Fields(custom, path)
