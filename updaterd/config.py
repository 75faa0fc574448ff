# SPDX-License-Identifier: Apache-2.0
"""The configuration: TOML files into frozen settings, every mistake named at once.

`updaterd.toml`, then `conf.d/*.toml` beside it in the order of their names; a later
file adds tables and replaces values. A key that is not known is an error: a typo in
a safety setting must not pass for a default.
"""

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from updaterd.core.names import check_name
from updaterd.core.proxies import fault_of
from updaterd.core.settings import (
    ITSELF,
    Directories,
    Download,
    Feed,
    Health,
    Hooks,
    Network,
    Product,
    Schedule,
    Settings,
    Trust,
)
from updaterd.core.special import KINDS
from updaterd.core.toml_fields import Table
from updaterd.core.units import parse_bytes, parse_rate
from updaterd.errors import BrokenError, MalformedError
from updaterd.files import ownership, roots

_SYSTEM_UIDS = 1000  # below: root or a system user, who gets the system's paths
_SYSTEM_CONFIG = Path("/etc/updaterd")
SELF_TEST = Path("/usr/lib/updaterd/self-test")  # the package's


class ConfigError(BrokenError):
    """The configuration cannot be used; the message lists every mistake in it."""

    code = "config"

    def __init__(
        self, cause: str, mistakes: list[str] | None = None, *, do: str = ""
    ) -> None:
        self.details = tuple(mistakes or ())
        super().__init__(
            cause,
            means="updaterd does not start with settings that it may misread",
            do=do or "correct the file and run `updaterd config check`",
        )


class UnsafeConfigError(ConfigError):
    """Others than root and the daemon's user could change the configuration."""

    code = "unsafe_config"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__(
            "the configuration could be changed by others",
            mistakes,
            do="let only root, or the daemon's user, write it and its directories",
        )
        self.means = "whoever may write it decides what is installed: it is not used"


def _network(table: Table, inherit: Network | None = None) -> Network:
    headers = table.table("headers")
    ca_file = table.path("ca_file")
    proxy = table.text("proxy")
    if proxy and (why := fault_of(proxy)):
        table.wrong("proxy", why)
    return Network(
        headers={name: headers.text(name) for name in headers.names()},
        headers_file=table.path("headers_file"),
        # Credentials are never inherited: the repository may be another origin.
        ca_file=ca_file or (inherit.ca_file if inherit else None),
        proxy=proxy or (inherit.proxy if inherit else None),
    )


def _feed(table: Table) -> Feed:
    feed = Feed(
        url=table.text("url", required=True),
        network=_network(table),
        backoff_min_s=table.seconds("backoff_min_s", 1.0, low=0.05),
        backoff_max_s=table.seconds("backoff_max_s", 300.0, low=0.05),
        idle_timeout_s=table.seconds("idle_timeout_s", 45.0, low=0.5),
        fallback_poll_s=table.seconds("fallback_poll_s", 21600.0, low=1.0),
    )
    if feed.backoff_min_s > feed.backoff_max_s:
        table.wrong("backoff_min_s", "must not exceed backoff_max_s")
    table.done()
    return feed


def _trust(table: Table, feed: Feed) -> Trust:
    trust = Trust(
        root=table.path("root", required=True) or Path("/"),
        repository=table.text("repository", required=True).rstrip("/"),
        mirrors=tuple(url.rstrip("/") for url in table.words("mirrors")),
        network=_network(table, feed.network),
    )
    table.done()
    return trust


def _download(table: Table) -> Download:
    sizes: dict[str, int | None] = {"max_rate": None, "min_free": 500 * 2**20}
    for key, parse in (("max_rate", parse_rate), ("min_free", parse_bytes)):
        text = table.text(key)
        if text:
            try:
                sizes[key] = parse(text)
            except MalformedError as error:
                table.wrong(key, str(error))
    table.done()
    return Download(max_rate=sizes["max_rate"], min_free=sizes["min_free"] or 0)


def _schedule(table: Table) -> Schedule:
    schedule = Schedule(
        window=table.text("window") or None,
        max_deferral_s=table.seconds("max_deferral", 7 * 86400.0),
    )
    if schedule.window is not None:
        from updaterd.core import windows  # noqa: PLC0415 - rarely used

        try:
            windows.parse_window(schedule.window)
        except MalformedError as error:
            table.wrong("window", str(error))
    table.done()
    return schedule


def _product(table: Table, name: str) -> Product:
    try:
        check_name("product", name)
        check_name("channel", table.text("channel", "stable"))
    except MalformedError as error:
        table.wrong("channel", str(error))
    health, hooks = table.table("health"), table.table("hooks")
    unchanged = table.text("unchanged", "reflink")
    if unchanged not in ("reflink", "hardlink", "copy"):
        table.wrong("unchanged", "must be reflink, hardlink or copy")
    product = Product(
        name=name,
        root=table.path("root", required=True) or Path("/"),
        channel=table.text("channel", "stable"),
        keep=table.whole("keep", 2, low=1),
        units=table.words("units"),
        users=table.words("users"),
        unchanged=unchanged,
        outside_links=_outside_links(table),
        special_modes=_special_modes(table),
        health=_health(health),
        hooks=Hooks(
            pre_stage=hooks.words("pre_stage"),
            # an updater must not be switched to untested for want of a line
            self_test=hooks.words("self_test") or _own_self_test(name),
            pre_activate=hooks.words("pre_activate"),
            post_activate=hooks.words("post_activate"),
            post_rollback=hooks.words("post_rollback"),
            timeout_s=hooks.seconds("timeout_s", 60.0, low=0.1),
        ),
    )
    for part in (health, hooks, table):
        part.done()
    return product


def _health(table: Table) -> Health:
    """Read what is declared in `Health`: each key by the type of its default."""
    values: dict[str, Any] = {}
    for key in fields(Health):
        if isinstance(key.default, tuple):
            values[key.name] = table.words(key.name)
        elif isinstance(key.default, float):
            low = key.metadata.get("low", 0.0)
            values[key.name] = table.seconds(key.name, key.default, low=low)
        else:
            values[key.name] = table.text(key.name) or None
    return Health(**values)


def _special_modes(table: Table) -> tuple[str, ...]:
    """Return which rights beyond its owner's a release may give its files."""
    modes = table.words("special_modes")
    if unknown := set(modes) - KINDS.keys():
        table.wrong(
            "special_modes", f"{min(unknown)!r:.80} is none of {', '.join(KINDS)}"
        )
    return modes


def _outside_links(table: Table) -> tuple[str, ...]:
    """Return where links of a release may lead: absolute paths, none for everywhere."""
    paths = table.words("outside_links")
    for path in paths:
        if os.path.normpath(path).lstrip("/") == "" or not path.startswith("/"):
            table.wrong("outside_links", f"{path!r:.80} must be an absolute path")
    return tuple(os.path.normpath(path) for path in paths)


def _own_self_test(product: str) -> tuple[str, ...]:
    """Return the packaged self-test for updaterd itself, nothing for others."""
    there = product == ITSELF and SELF_TEST.exists()
    return (str(SELF_TEST),) if there else ()


def read(document: Mapping[str, object], directories: Directories) -> Settings:
    """Return the settings in a parsed document.

    Raises:
        ConfigError: with every mistake in it.
    """
    mistakes: list[str] = []
    top = Table(document, "", mistakes)
    feed = _feed(top.table("feed"))
    trust = _trust(top.table("trust"), feed)
    download = _download(top.table("download"))
    schedule = _schedule(top.table("schedule"))
    listed = top.table("products")
    products = {name: _product(listed.table(name), name) for name in listed.names()}
    top.done()
    # Two products in one tree would prune each other's releases.
    mistakes += roots.shared(products.values())
    if mistakes:
        raise ConfigError(
            f"{directories.config} has {len(mistakes)} "
            + ("mistakes" if len(mistakes) > 1 else "mistake"),
            mistakes,
        )
    return Settings(
        feed=feed,
        trust=trust,
        download=download,
        schedule=schedule,
        products=products,
        directories=directories,
    )


def _merge(into: dict[str, object], more: Mapping[str, object]) -> None:
    for key, value in more.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        else:
            into[key] = value


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def load(
    file: Path | None = None,
    *,
    state: Path | None = None,
    cache: Path | None = None,
    runtime: Path | None = None,
    demo: bool = False,
) -> Settings:
    """Return the settings of this machine.

    Args:
        file: the configuration; None looks in the usual places.
        state: directory of the database and the trust cache.
        cache: directory of partial downloads.
        runtime: directory of status.json and the locks.
        demo: whether a repository of the demo profile is acceptable.

    Raises:
        ConfigError: no file, or one that cannot be used.
        UnsafeConfigError: one that others could change.
    """
    path = file or _find_config()
    where = directories(path, state=state, cache=cache, runtime=runtime)
    trusted = ownership.owners(where.state)
    parts = sorted(path.parent.glob("conf.d/*.toml"))
    files = [path, path.parent / "conf.d", *parts]
    _require_ours([file.absolute() for file in files], trusted)
    document = _read_file(path)
    for part in parts:
        _merge(document, _read_file(part))
    settings = read(document, where)
    _require_ours(_named(settings), trusted)
    if demo:
        from dataclasses import replace  # noqa: PLC0415 - only in demos

        settings = replace(settings, demo=True)
    return settings


def _require_ours(files: Iterable[PurePath], trusted: frozenset[int]) -> None:
    """Check that nobody else decides what the configuration says.

    Raises:
        UnsafeConfigError: others could change one of the files.
    """
    mistakes = [fault for file in files if (fault := ownership.fault(file, trusted))]
    if mistakes:
        raise UnsafeConfigError(list(dict.fromkeys(mistakes)))


def _named(settings: Settings) -> Iterator[PurePath]:
    """Yield the files of which the configuration says that they are believed."""
    yield settings.trust.root
    for network in (settings.feed.network, settings.trust.network):
        for file in (network.ca_file, network.headers_file):
            if file is not None:
                yield file


def directories(
    file: Path | None = None,
    *,
    state: Path | None = None,
    cache: Path | None = None,
    runtime: Path | None = None,
) -> Directories:
    """Return where updaterd keeps its things; no file needs to be right for that.

    Args:
        file: the configuration; None for the one that `load` would find, or look for.
        state: see `load`; the others too.
        cache: as above.
        runtime: as above.
    """
    try:
        path = file or _find_config()
    except ConfigError:
        path = _places()[0] / "updaterd.toml"
    # Whoever asks about the system's daemon means the system's directories.
    named = system_name(path)
    is_system = bool(named) or os.getuid() < _SYSTEM_UIDS
    own = named or _SYSTEM_CONFIG.name
    return Directories(
        config=path,
        state=state or _directory("state", f"/var/lib/{own}", is_system=is_system),
        cache=cache or _directory("cache", f"/var/cache/{own}", is_system=is_system),
        runtime=runtime or _directory("runtime", f"/run/{own}", is_system=is_system),
    )


def system_name(file: Path) -> str:
    """Return "updaterd" or, of a further daemon, "updaterd-NAME"; "" elsewhere.

    updaterd@NAME.service has directories of its own by that name.
    """
    folder = file.absolute().parent
    own = _SYSTEM_CONFIG.name
    same = folder.parent == _SYSTEM_CONFIG.parent
    return folder.name if same and (folder.name + "-").startswith(f"{own}-") else ""


def _places() -> list[Path]:
    """Return where a configuration may be: systemd's, the user's, the system's."""
    places = []
    if named := os.environ.get("CONFIGURATION_DIRECTORY"):
        places.append(Path(named.split(":")[0]))
    if os.getuid() >= _SYSTEM_UIDS:
        import platformdirs  # noqa: PLC0415 - never needed under systemd

        places.append(platformdirs.user_config_path("updaterd"))
    return [*places, _SYSTEM_CONFIG]


def _find_config() -> Path:
    """Return the first configuration there is.

    Raises:
        ConfigError: there is none.
    """
    places = _places()
    for place in places:
        # not Path.exists: it raises for a folder that is closed to us
        if os.path.exists(place / "updaterd.toml"):
            return place / "updaterd.toml"
    raise ConfigError(
        "no configuration found: looked for updaterd.toml in "
        + ", ".join(str(place) for place in places),
        do="write one (README.md shows how), or name it with --config",
    )


def _directory(kind: str, system: str, *, is_system: bool) -> Path:
    """Return systemd's directory, else the system's, else this user's."""
    if named := os.environ.get(f"{kind.upper()}_DIRECTORY"):
        return Path(named.split(":")[0])
    if is_system:
        return Path(system)
    import platformdirs  # noqa: PLC0415 - never needed under systemd

    if kind == "runtime":
        return _session() or platformdirs.user_state_path("updaterd") / "run"
    path: Path = getattr(platformdirs, f"user_{kind}_path")("updaterd")
    return path


def _session() -> Path | None:
    """Return this user's folder for as long as he is logged on; None: there is none.

    Never one in a shared folder (`/tmp/runtime-1000`), whose name others know and take.
    """
    own = os.geteuid()
    for text in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{own}"):
        path = Path(text)
        try:
            is_own = path.is_absolute() and path.stat().st_uid == own
            if is_own and not ownership.fault(path, frozenset({0, own})):
                return path / "updaterd"
        except OSError:
            continue
    return None
