# SPDX-License-Identifier: Apache-2.0
"""The publisher's directory: what is served, the keys, the settings.

DIR/public/{metadata,targets,blobs}   served to the world
DIR/keys/                             0700; see release/keys/keyring.py
DIR/release.toml                      feed, token, platform
DIR/work/                             half-made things; may be deleted at any time
"""

import json
import platform
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from updaterd import durable
from updaterd.core import layout
from updaterd.core.names import check_name
from updaterd.errors import BrokenError
from updaterd.files import deletion
from updaterd.release import paces
from updaterd.release.destinations.contract import PATIENCE_S
from updaterd.release.keys.files import Passphrase
from updaterd.release.keys.keyring import Keyring
from updaterd.release.paces import Profile
from updaterd.system import locks


def this_platform() -> str:
    """Return this machine's platform name: `linux-x86_64`, `linux-aarch64`."""
    return layout.platform(platform.machine())


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`release.toml`.

    Attributes:
        served_at: where the world finds `public/`; None: beside the feed, if at all.
        to: destinations that each publication is copied to.
        patience_s: how long a destination is asked again that does not answer.
        pace: name of the pace that releases get unless another is asked for.
        paces: those that are defined here, by name.
    """

    profile: str
    platform: str
    feed: str | None = None
    token_file: str | None = None
    served_at: str | None = None
    to: tuple[str, ...] = ()
    patience_s: float = PATIENCE_S
    deltas: int = 5
    pace: str = paces.AT_ONCE
    paces: Mapping[str, Profile] = field(default_factory=dict)


class Workspace:
    """One repository with its keys.

    Args:
        folder: DIR.
        passphrase: for key files of the prod profile.
        pin: for keys in tokens; None: as for key files.

    Raises:
        BrokenError: there is no workspace, or its settings cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        passphrase: Passphrase | None = None,
        pin: Passphrase | None = None,
    ) -> None:
        self.folder = folder
        self.settings = _read_settings(folder / "release.toml")
        self.keyring = Keyring(
            folder / "keys",
            passphrase if self.settings.profile != "demo" else None,
            pin,
        )

    @property
    def public(self) -> Path:
        """Return the directory to serve as `/repo/`."""
        return self.folder / "public"

    @property
    def metadata(self) -> Path:
        """Return the directory of the signed files."""
        return self.public / layout.METADATA

    @property
    def work(self) -> Path:
        """Return the directory for half-made things, made when absent."""
        path = self.folder / "work"
        durable.make_dir(path, mode=0o700)
        return path

    def blob(self, digest: str) -> Path:
        """Return where a blob is, or will be."""
        return self.public / layout.blob(digest)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield an empty directory of this run's own; sweep those of runs that died.

        Raises:
            OSError: the disk refused.

        Power cut: it is left over, and swept by the next run.
        """
        with ExitStack() as stack:
            with self.locked():  # nobody takes it for dead before it has its lock
                dead = [
                    path
                    for path in self.work.iterdir()
                    if not locks.is_held(path / "lock")
                ]
                own = Path(
                    stack.enter_context(
                        tempfile.TemporaryDirectory(
                            dir=self.work, ignore_cleanup_errors=True
                        )
                    )
                )
                stack.enter_context(locks.hold(own / "lock", subject="this run"))
            for path in dead:
                deletion.delete_tree(path)
            yield own

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository: no other publisher signs meanwhile."""
        with locks.hold(self.folder / "lock", subject="the repository", wait=True):
            yield


def create(folder: Path, settings: Settings) -> None:
    """Lay out a workspace; finds its half-made self after an interruption.

    Raises:
        BrokenError: one of another profile, feed or token is already there.

    Power cut: directories are harmless, `release.toml` is whole or absent.
    """
    check_name("platform", settings.platform)
    existing = folder / "release.toml"
    if existing.exists():
        _check_same(existing, settings)
    for name in layout.FOLDERS:
        durable.make_dir(folder / "public" / name)
    durable.make_dir(folder / "keys", mode=0o700)
    if not existing.exists():
        durable.write_file(existing, _toml(settings).encode(), mode=0o644)


def _check_same(existing: Path, settings: Settings) -> None:
    present = _read_settings(existing)
    if present.profile != settings.profile:
        raise BrokenError(
            f"{existing.parent} already is a workspace of another profile",
            do="choose another directory",
            code="workspace_exists",
        )
    for name in ("feed", "token_file", "served_at", "to"):
        if getattr(settings, name) not in {None, (), getattr(present, name)}:
            raise BrokenError(
                f"{existing.parent} already is a workspace, with another {name}",
                means="it was left as it is",
                do=f"change {name} in {existing}",
                code="workspace_exists",
            )


def _toml(settings: Settings) -> str:
    lines = ["# written by `updaterd release init`"]
    for name in (
        "profile", "platform", "feed", "token_file", "served_at", "to", "deltas"
    ):  # fmt: skip
        value = getattr(settings, name)
        if value is None:
            lines.append(f'# {name} = ""')
        elif value == ():
            lines.append(f'# {name} = ["s3://BUCKET/PREFIX"]')
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    lines += [
        '# pace = "staged"  # of each release: at-once, canary, staged, or your own:',
        "# [paces.careful]",
        '# steps = [[5, "0s"], [100, "1d"], [1000, "3d"]]',
        '# first = ["staff"]',
    ]
    return "\n".join(lines) + "\n"


def _read_settings(path: Path) -> Settings:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        settings = Settings(
            profile=str(table["profile"]),
            platform=check_name("platform", str(table["platform"])),
            feed=str(table["feed"]) if "feed" in table else None,
            token_file=str(table["token_file"]) if "token_file" in table else None,
            served_at=str(table["served_at"]) if "served_at" in table else None,
            to=_destinations(table.get("to", ())),
            patience_s=float(table.get("patience_s", PATIENCE_S)),
            deltas=int(table.get("deltas", 5)),
            pace=str(table.get("pace", paces.AT_ONCE)),
            paces=paces.read_all(table.get("paces", {})),
        )
    except FileNotFoundError as error:
        raise BrokenError(
            f"{path.parent} is not a release workspace",
            do=f"make one: `updaterd release init {path.parent}`",
            code="no_workspace",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenError(
            f"cannot read {path}: {error}", code="bad_workspace"
        ) from error
    return settings


def _destinations(value: object) -> tuple[str, ...]:
    """Return `to`: one address, or a list of them.

    Raises:
        ValueError: it is neither.
    """
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, list | tuple) or not all(
        isinstance(address, str) and address for address in addresses
    ):
        raise ValueError("`to` is an address, or a list of them")
    return tuple(addresses)
