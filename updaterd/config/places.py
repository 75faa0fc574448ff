# SPDX-License-Identifier: Apache-2.0
"""Where the configuration and the directories of a daemon are."""

import os
from pathlib import Path

from updaterd.config.errors import ConfigError
from updaterd.core.settings import (
    Directories,
)
from updaterd.files import ownership

_SYSTEM_UIDS = 1000  # below: root or a system user, who gets the system's paths
_SYSTEM_CONFIG = Path("/etc/updaterd")


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


def find_config() -> Path:
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
