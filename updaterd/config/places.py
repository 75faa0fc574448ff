# SPDX-License-Identifier: Apache-2.0
"""Where the configuration and the directories of a daemon are."""

import os
import re
from pathlib import Path

from updaterd.config.errors import ConfigError
from updaterd.core.settings import (
    Directories,
)
from updaterd.files import ownership

_SYSTEM_UIDS = 1000  # below: root or a system user, who gets the system's paths
_SYSTEM_CONFIG = Path("/etc/updaterd")
_FILE = "updaterd.toml"
FRAGMENTS = "conf.d"


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
        path = file or find_config()
    except ConfigError:
        path = _places()[0] / _FILE
    # Whoever asks about the system's daemon means the system's directories.
    named = system_name(path)
    is_system = bool(named) or os.getuid() < _SYSTEM_UIDS
    own = named or _user_name(path) or _SYSTEM_CONFIG.name
    return Directories(
        config=path,
        state=state or _directory("state", f"/var/lib/{own}", own, is_system),
        cache=cache or _directory("cache", f"/var/cache/{own}", own, is_system),
        runtime=runtime or _directory("runtime", f"/run/{own}", own, is_system),
    )


def system_name(file: Path) -> str:
    """Return "updaterd" or, of a further daemon, "updaterd-NAME"; "" elsewhere.

    updaterd@NAME.service has directories of its own by that name.
    """
    return _daemon_name(file, _SYSTEM_CONFIG.parent)


def _user_name(file: Path) -> str:
    """Return the same of a daemon in a person's own places."""
    if not _is_person():
        return ""
    try:
        parent = _user_path("config").parent
    except RuntimeError:  # a user without a home has no places of their own
        return ""
    return _daemon_name(file, parent)


def _daemon_name(file: Path, parent: Path) -> str:
    folder = file.absolute().parent
    own = _SYSTEM_CONFIG.name
    same = folder.parent == parent
    return folder.name if same and (folder.name + "-").startswith(f"{own}-") else ""


def _is_person() -> bool:
    return os.getuid() >= _SYSTEM_UIDS


def _user_path(kind: str, name: str = _SYSTEM_CONFIG.name) -> Path:
    import platformdirs  # noqa: PLC0415 - never needed under systemd

    path: Path = getattr(platformdirs, f"user_{kind}_path")(name)
    return path


def starting(file: Path) -> str:
    """Return the command that starts the daemon which has a configuration."""
    name = system_name(file)
    manager = "systemctl"
    if not name and (name := _user_name(file)):
        manager = "systemctl --user"
    if not name:
        return f"updaterd run --config {file}"
    first, dash, rest = name.partition("-")
    return f"{manager} start {first}@{rest}" if dash else f"{manager} start {first}"


def vendors(file: Path) -> tuple[Path, ...]:
    """Return where packages put fragments for the daemon of `file`, weakest first.

    Not in its runtime directory, which is the daemon's own to write: `config grant`
    obeys the configuration as root.
    """
    if name := system_name(file):
        return (
            Path("/usr/lib", name, FRAGMENTS),
            Path("/run", f"{name}.{FRAGMENTS}"),
        )
    if name := _user_name(file):
        return (_user_path("data", name) / FRAGMENTS,)
    return ()


def is_configured(file: Path) -> bool:
    """Tell whether a daemon has a configuration: its file, or a fragment alone."""
    # not Path.exists: it raises for a folder that is closed to us
    if os.path.exists(file):
        return True
    for folder in (*vendors(file), file.parent / FRAGMENTS):
        try:
            if any(name.endswith(".toml") for name in os.listdir(folder)):
                return True
        except OSError:
            continue
    return False


def of_daemon(name: str) -> Path | None:
    """Return the configuration of the daemon `updaterd@NAME`; None: there is none."""
    if not name or "/" in name:
        return None
    own = f"{_SYSTEM_CONFIG.name}-{name}"
    files = [_SYSTEM_CONFIG.with_name(own) / _FILE]
    if _is_person():
        files.insert(0, _user_path("config", own) / _FILE)
    return next((file for file in files if is_configured(file)), None)


def daemons() -> tuple[str, ...]:
    """Return the names of the daemons beside the first that are configured here."""
    first = f"{_SYSTEM_CONFIG.name}-"
    parents = [Path("/usr/lib"), _SYSTEM_CONFIG.parent]
    if _is_person():
        parents += [_user_path("data").parent, _user_path("config").parent]
    names = set()
    for parent in parents:
        try:
            listed = os.listdir(parent)
        except OSError:
            continue
        names |= {name.removeprefix(first) for name in listed if name.startswith(first)}
    return tuple(sorted(name for name in names if of_daemon(name)))


def _places() -> list[Path]:
    """Return where a configuration may be: systemd's, the user's, the system's."""
    places = []
    if named := os.environ.get("CONFIGURATION_DIRECTORY"):
        places.append(Path(named.split(":")[0]))
    if _is_person():
        places.append(_user_path("config"))
    return [*places, _SYSTEM_CONFIG]


def find_config() -> Path:
    """Return the first configuration there is.

    Raises:
        ConfigError: there is none.
    """
    places = _places()
    for place in places:
        if is_configured(place / _FILE):
            return place / _FILE
    names = () if "CONFIGURATION_DIRECTORY" in os.environ else daemons()
    raise ConfigError(
        "no configuration found: looked for updaterd.toml in "
        + ", ".join(str(place) for place in places),
        do=f"name a daemon, with --daemon: {', '.join(names)}"
        if names
        else "write one (README.md shows how), or name it with --config",
    )


def chosen(
    file: Path | None, *, daemon: str | None = None, product: str | None = None
) -> Path | None:
    """Return the configuration that a command means; None: the first there is.

    Args:
        file: named by a person.
        daemon: its daemon, named by a person.
        product: what the command is about. A kit's daemon has its product's name.

    Raises:
        ConfigError: there is no daemon of that name.
    """
    if file is not None:
        return file
    if daemon:
        config = of_daemon(daemon)
        if config is None:
            known = ", ".join(daemons())
            error = ConfigError(
                f"no daemon {daemon!r:.80} is configured here",
                do=f"there are {known}"
                if known
                else "it would be configured in "
                "/etc/updaterd-NAME; there is no such folder",
            )
            error.means = "nothing was done"
            raise error
        return config
    if "CONFIGURATION_DIRECTORY" in os.environ:
        return None
    if product is not None and (config := of_daemon(product)) is not None:
        return config
    return _only()


def _only() -> Path | None:
    """Return the configuration of the only daemon that has products, if it is a kit's.

    The package's own example, which nobody has edited, has none.

    Raises:
        ConfigError: there are several.
    """
    names = daemons()
    first = next((p / _FILE for p in _places() if is_configured(p / _FILE)), None)
    if not names or (first is not None and _has_products(first)):
        return None
    if len(names) == 1:
        return of_daemon(names[0])
    raise ConfigError(
        f"there are several daemons here, of kits: {', '.join(names)}",
        do="name one with --daemon"
        + (f", or the machine's own with --config {first}" if first else ""),
    )


def _has_products(file: Path) -> bool:
    """Tell whether a configuration may have products, from a glance at it."""
    for path in (file, *_fragments(file)):
        try:
            text = path.read_text("utf-8", errors="replace")
        except OSError:
            continue
        if re.search(r"^\s*\[?\s*products\b", text, re.MULTILINE):
            return True
    return False


def _fragments(file: Path) -> list[Path]:
    folders = (*vendors(file), file.parent / FRAGMENTS)
    return [path for folder in folders for path in folder.glob("*.toml")]


def _directory(kind: str, system: str, own: str, is_system: bool) -> Path:
    """Return systemd's directory, else the system's, else this user's."""
    if named := os.environ.get(f"{kind.upper()}_DIRECTORY"):
        return Path(named.split(":")[0])
    if is_system:
        return Path(system)
    if kind == "runtime":
        session = _session()
        return session / own if session else _user_path("state", own) / "run"
    return _user_path(kind, own)


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
                return path
        except OSError:
            continue
    return None
