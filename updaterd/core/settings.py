# SPDX-License-Identifier: Apache-2.0
"""What an owner may configure, as frozen values with the units in the names.

`updaterd.config` reads them from TOML; the floors below get them as arguments.
The structs stand here, not there, so that every floor may name them.
"""

from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import PurePath

from updaterd.core.dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How to reach servers: one set for the feed, the metadata and the blobs.

    Attributes:
        token_file: where `updaterd enroll` keeps the machine's token, if it has one.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    headers_file: PurePath | None = None
    ca_file: PurePath | None = None
    proxy: str | None = None
    token_file: PurePath | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """`[feed]`: the subscription."""

    url: str
    network: Network = field(default_factory=Network)
    backoff_min_s: float = 1.0
    backoff_max_s: float = 300.0
    idle_timeout_s: float = 45.0
    fallback_poll_s: float = 21600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """`[trust]`: where truth comes from."""

    root: PurePath
    repository: str
    mirrors: tuple[str, ...] = ()
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """`[download]`: how bundles come.

    Attributes:
        max_rate: bytes per second; None: no limit.
        min_free: bytes to leave free.
        redirect_hosts: other hosts that a server may send for bundles to.
        metered: whether to wait on a metered network, "hold" or "allow".
        metered_max: bytes that may be downloaded there.
    """

    max_rate: int | None = None
    min_free: int = 500 * 2**20
    redirect_hosts: tuple[str, ...] = ()
    metered: str = "hold"
    metered_max: int = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """`[schedule]`: when updates may be applied, and how long they may wait."""

    window: str | None = None
    max_deferral_s: float = 7 * 86400.0
    on_battery: str = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """`[reports]`: what this machine tells about its updates, to whom. Off at first.

    Attributes:
        send: whether anything is reported.
        url: of the server, `.../v1/reports`.
        tags: words that reports carry: which group, which site.
        sign_of_life: whether a machine that is current says so, once a day.
    """

    send: bool = False
    url: str = ""
    tags: tuple[str, ...] = ()
    sign_of_life: bool = False
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """`[enrolment]`: where a one-time code makes this machine known.

    Attributes:
        url: of the server, `.../v1/enroll`; "": it is not known.
    """

    url: str = ""
    network: Network = field(default_factory=Network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """`health = {...}`: what must hold after activation.

    A field of `kind` "check" is performed by `install/checks/NAME.py`. The type of a
    default says how its key is written in the configuration.

    Attributes:
        command: argv of what ends with 0 when the release is well.
        url: an address that answers with 2xx.
        timeout_s: until when all of them are asked.
        every_s: the pause between two times.
        stable_s: how long all must be well without a break.
        active_s: how long units must stay up.
    """

    command: tuple[str, ...] = field(default=(), metadata={"kind": "check"})
    url: str | None = field(default=None, metadata={"kind": "check"})
    timeout_s: float = field(default=60.0, metadata={"low": 0.1})
    every_s: float = field(default=0.5, metadata={"low": 0.05})
    stable_s: float = 0.0
    active_s: float = 0.0

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """Return the kinds of check that there are, in the order of asking."""
        return tuple(key.name for key in fields(cls) if "kind" in key.metadata)

    @property
    def checks(self) -> tuple[str, ...]:
        """Return the kinds of check that are configured, in the same order."""
        return tuple(name for name in self.kinds() if getattr(self, name))

    @property
    def commands(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the configured checks that run a program: kind and argv."""
        values = ((name, getattr(self, name)) for name in self.checks)
        return tuple((name, argv) for name, argv in values if isinstance(argv, tuple))

    @property
    def longest_s(self) -> float:
        """Return how long one verdict may take.

        What is asked last before the time is up may take as long as all the time.
        """
        return self.active_s + 2 * self.timeout_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """`hooks = {...}`: argv of each, run without a shell."""

    pre_stage: tuple[str, ...] = ()
    self_test: tuple[str, ...] = ()
    pre_activate: tuple[str, ...] = ()
    post_activate: tuple[str, ...] = ()
    post_rollback: tuple[str, ...] = ()
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredAttestation:
    """`require_attestation = {...}`: what must be attested of a release, and by whom.

    Attributes:
        predicate_type: of the statement.
        key: PEM file with the public key that must have signed it.
    """

    predicate_type: str
    key: PurePath


ITSELF = "updaterd"
"""The product whose releases are updaterd's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`[products.NAME]`: one application on this machine."""

    name: str
    root: PurePath
    channel: str = "stable"
    keep: int = 2
    units: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    activate: str = "at-once"
    unchanged: str = "reflink"
    outside_links: tuple[str, ...] = ()
    special_modes: tuple[str, ...] = ()
    require_attestation: RequiredAttestation | None = None
    health: Health = field(default_factory=Health)
    hooks: Hooks = field(default_factory=Hooks)

    @property
    def longest_trial_s(self) -> float:
        """Return how long a trial and the way back may take, without the restarts."""
        return 2 * (self.hooks.timeout_s + self.health.longest_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where updaterd keeps its own things."""

    config: PurePath
    state: PurePath
    cache: PurePath
    runtime: PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration.

    Attributes:
        tags: what the owner calls this machine: rollouts may name some.
    """

    feed: Feed
    trust: Trust
    download: Download
    schedule: Schedule
    products: Mapping[str, Product]
    directories: Directories
    reports: Reports = field(default_factory=Reports)
    enrolment: Enrolment = field(default_factory=Enrolment)
    demo: bool = False
    tags: tuple[str, ...] = ()

    @property
    def longest_trial_s(self) -> float:
        """Return how long any product's trial may take, without the restarts."""
        trials = (product.longest_trial_s for product in self.products.values())
        return max(trials, default=0.0)
