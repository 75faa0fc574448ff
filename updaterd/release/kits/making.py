# SPDX-License-Identifier: Apache-2.0
"""A kit in its forms: a package for Debian, an rpm, an installer for a shell."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from updaterd import __version__, durable
from updaterd.core import layout
from updaterd.release.kits import apt, contents, deb, rpm, shell
from updaterd.release.kits.description import Kit, KitError

FORMS = ("deb", "rpm", "sh")
_ANY_ARCH = {"deb": "all", "rpm": "all"}
_ARCH = {layout.platform("x86_64"): "amd64", layout.platform("aarch64"): "arm64"}
_NO_TIME = 315532800  # 1980: what is the same each time has no time of its own


def made_at() -> int:
    """Return the time that everything in a kit has: SOURCE_DATE_EPOCH, or none."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else _NO_TIME


def write(
    kit: Kit,
    out: Path,
    *,
    forms: tuple[str, ...],
    carried: Mapping[str, bytes],
    platform: str,
) -> list[Path]:
    """Write the kit's forms into a folder; return them, and updaterd's packages.

    Args:
        kit: what it is for.
        out: the folder; made where it is missing.
        forms: which of FORMS.
        carried: files of the repository that come along; none: it is fetched.
        platform: what the carried release is for.

    Raises:
        KitError: it cannot be made.

    Power cut: each file is there whole, or not.
    """
    if "sh" in forms:
        _check_installer(kit, carries=bool(carried))
    when, suffix = made_at(), "-offline" if carried else ""
    arch = _ARCH[platform] if carried else "all"
    files, scripts = contents.of_machine(kit, carried), contents.scripts(kit)
    written: dict[str, bytes] = {}
    if set(forms) & {"deb", "sh"}:
        name = f"{kit.name}{suffix}_{kit.version}_{arch}.deb"
        written[name] = deb.package(_control(kit, arch), scripts, files, when=when)
    if "rpm" in forms:
        with tempfile.TemporaryDirectory(prefix="updaterd-kit-") as scratch:
            depends = [f"updaterd >= {__version__}"]
            path = rpm.package(
                kit,
                scripts,
                files,
                depends=depends + (["polkit"] if kit.has_units else []),
                arch=arch,
                when=when,
                scratch=Path(scratch),
            )
            written[path.name.replace(kit.name, f"{kit.name}{suffix}", 1)] = (
                path.read_bytes()
            )
    if "sh" in forms:
        written[f"{kit.name}{suffix}.sh"] = shell.script(
            kit,
            packages=dict(written),
            person=contents.of_person(kit, carried),
            carry=bool(carried),
            when=when,
        )
    if "deb" not in forms:
        written = {
            name: data for name, data in written.items() if not name.endswith(".deb")
        }
    if "sh" in forms and not carried:
        written |= {
            package.path.name: package.path.read_bytes() for package in kit.packages
        }
    durable.make_dir(out)
    for name, data in sorted(written.items()):
        durable.publish_file(out / name, data)
    return [out / name for name in sorted(written)]


def _check_installer(kit: Kit, *, carries: bool) -> None:
    """Make sure that a kit's installer for a shell would find what it needs.

    Raises:
        KitError: it would not.
    """
    if not kit.packages:
        raise KitError(
            "an installer for a shell brings updaterd, and `packages` names none",
            do="name updaterd's packages in [updaterd] of the kit's file (at least a "
            ".deb, also for other systems); or leave it out (--form deb,rpm)",
        )
    debs = [package.path for package in kit.packages if package.path.suffix == ".deb"]
    for path in debs:
        if not apt.knows_kits(path):
            raise KitError(
                f"{path} is no package of an updaterd that kits can install",
                do="name one that has usr/lib/systemd/user/updaterd@.service, "
                "or leave the installer out (--form deb,rpm)",
            )
    if not carries and not kit.url:
        raise KitError(
            "an installer without a release fetches updaterd, and `url` is missing",
            do="say in [updaterd] where its packages will be served",
        )


def _control(kit: Kit, arch: str) -> dict[str, str]:
    polkit = ", polkitd | policykit-1" if kit.has_units else ""
    fields = {
        "Package": kit.name,
        "Version": kit.version,
        "Architecture": arch,
        "Maintainer": kit.publisher,
        "Depends": f"updaterd (>= {__version__}){polkit}",
        "Section": "misc",
        "Priority": "optional",
        "Homepage": kit.homepage,
        "Description": f"{kit.summary}\n Brings the configuration of updaterd for "
        f"{kit.title}, and installs it.",
    }
    return {name: value for name, value in fields.items() if value}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file that was made."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
