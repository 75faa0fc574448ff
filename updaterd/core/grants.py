# SPDX-License-Identifier: Apache-2.0
"""What the machine must grant the daemon's user, and not a thing more.

The daemon is not root. It needs three grants, all of them told by the configuration:
to write the product trees, to restart the products' units, and to do so from within
its hardened unit. Pure: returns the texts; `updaterd config grant` writes them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from updaterd.core import reserved
from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Product
from updaterd.errors import BrokenError

USER = "updaterd"
UNIT = "updaterd.service"
VERBS = ("start", "stop", "restart", "reset-failed")

# systemd.unit(5): the characters of a unit's name, and the kinds a release may own
_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.(service|socket|timer|target|path)"
)
_PATH = re.compile(r"/[A-Za-z0-9/_.+@-]+")

FRAGMENTS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where a unit's file must stand, in systemd's order, so that its restart is granted:
what root or a package put there. Not what generators or `systemd-run` make."""

# in the JavaScript of polkitd (ES5); what cannot be told is a no
_INSTALLED = r"""    function installed(unit) {
        try {
            var said = polkit.spawn(["/usr/bin/systemctl", "show",
                "--property=LoadState,Transient,FragmentPath", "--", unit]);
            var path = /^FragmentPath=((?:FOLDERS)\/[^\/\n]+)$/m.exec(said);
            if (!path || !/^LoadState=loaded$/m.test(said) ||
                !/^Transient=no$/m.test(said)) {
                return false;
            }
            var file = polkit.spawn(["/usr/bin/stat", "--format=%u:%f", "--", path[1]]);
            var mode = parseInt(file.split(":")[1], 16);
            return file.split(":")[0] == "0" &&  // root's, a plain file, no link,
                (mode & 0xf000) == 0x8000 && (mode & 0x12) == 0;  // nobody else writes
        } catch (error) {
            return false;
        }
    }
"""


@dataclass(frozen=True, slots=True)
class Grant:
    """A file that root writes: where, and what is in it."""

    path: PurePath
    text: str


def grants(
    products: Iterable[Product], *, user: str = USER, unit: str = UNIT
) -> tuple[Grant, ...]:
    """Return the files that let `user`, in `unit`, keep `products` up to date.

    Raises:
        BrokenError: a unit or root that nobody should be granted.
    """
    ordered = sorted(products, key=lambda product: product.name)
    for product in ordered:
        _check(product)
        if product.name == USER and str(product.root) != f"/opt/{user}":
            raise BrokenError(
                f"{str(product.root)!r:.100} cannot be the root of updaterd itself",
                means=f"{unit} runs a release of its own only from /opt/{user}",
                do=f'set products.updaterd.root = "/opt/{user}"',
                code="grant_root",
            )
    name = unit.removesuffix(".service")
    units = sorted({u for product in ordered for u in product.units})
    if any(product.name == USER for product in ordered):
        units = sorted({*units, unit})
    roots = sorted({str(product.root) for product in ordered})
    return (
        Grant(
            PurePath(f"/etc/polkit-1/rules.d/50-{name}.rules"),
            polkit_rule(units, user=user),
        ),
        Grant(
            PurePath(f"/etc/tmpfiles.d/{name}-products.conf"),
            _header("#")
            + "".join(f"d {root} 0755 {user} {user} -\n" for root in roots),
        ),
        Grant(
            PurePath(f"/etc/systemd/system/{unit}.d/50-products.conf"),
            _header("#")
            + _mounts(roots)
            + "[Service]\n# the first line forgets the packaged, wider list\n"
            + "ReadWritePaths=\n"
            + "".join(f"ReadWritePaths=-{root}\n" for root in roots),
        ),
    )


def _mounts(roots: Sequence[str]) -> str:
    """Return that the daemon starts after what a root lies on is mounted.

    Not `RequiresMountsFor=`: one disk that does not come, or is taken out, would end
    the updates of all that is elsewhere. A tree that is gone is noticed
    (docs/decisions/0022).
    """
    folders = {
        str(folder)
        for root in roots
        for folder in (PurePath(root), *PurePath(root).parents)
    }
    units = " ".join(mount_unit(folder) for folder in sorted(folders - {"/"}))
    return f"[Unit]\nWants={units}\nAfter={units}\n" if units else ""


def mount_unit(folder: str) -> str:
    """Return the unit by which systemd mounts at `folder` (systemd-escape --path)."""
    name = "".join(
        "-" if char == "/"
        else char if char.isascii() and (char.isalnum() or char in ":_.")
        else "".join(f"\\x{byte:02x}" for byte in char.encode())
        for char in folder.strip("/")
    )  # fmt: skip
    return (f"\\x2e{name[1:]}" if name.startswith(".") else name) + ".mount"


def polkit_rule(units: Sequence[str], *, user: str = USER) -> str:
    """Return a polkit rule: `user` may restart `units`, no others, no other action.

    Only units that are loaded from a file of root's. systemd 257 asks about a transient
    unit (`systemd-run --unit=NAME`, which runs anything as root) in the same words as
    about one that is installed, and a file that this user writes is as good.

    Nothing else is decided here, so every other question goes on to the next rule.
    """
    folders = "|".join(folder.replace("/", "\\/") for folder in FRAGMENTS)
    return _header("//") + (
        "polkit.addRule(function(action, subject) {\n"
        f"    var units = {json.dumps(list(units))};\n"
        f"    var verbs = {json.dumps(list(VERBS))};\n"
        + _INSTALLED.replace("FOLDERS", folders)
        + '    if (action.id == "org.freedesktop.systemd1.manage-units" &&\n'
        f"        subject.user == {json.dumps(user)} &&\n"
        '        units.indexOf(action.lookup("unit")) >= 0 &&\n'
        '        verbs.indexOf(action.lookup("verb")) >= 0 &&\n'
        '        installed(action.lookup("unit"))) {\n'
        "        return polkit.Result.YES;\n"
        "    }\n"
        "});\n"
    )


def _header(comment: str) -> str:
    return f"{comment} Written by `updaterd config grant`; run it again, do not edit.\n"


def _check(product: Product) -> None:
    for unit in product.units:
        if not _UNIT.fullmatch(unit):
            raise BrokenError(
                f"{unit!r:.100} of product {product.name} is not the name of a unit",
                do="name services, sockets, timers, targets or paths, with suffix",
                code="grant_unit",
            )
    root, parts = str(product.root), product.root.parts[1:]
    why = reserved.fault(product.root)
    if not _PATH.fullmatch(root) or ".." in parts:
        why = "it has characters that no grant can hold"
    elif parts[0] in reserved.PEOPLES:
        why = f"/{parts[0]} is not a place for what a daemon owns"
    elif len(parts) < 2:
        why = "it is a folder of the machine's"
    if why:
        raise BrokenError(
            f"{root!r:.100} cannot be the root of product {product.name}: {why}",
            means="the daemon would own a folder that others use, too",
            do="give the product a folder of its own, such as /opt/acme",
            code="grant_root",
        )
