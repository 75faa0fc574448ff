# SPDX-License-Identifier: Apache-2.0
"""The files that a kit brings to a machine, and the scripts of its package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from updaterd.core import layout
from updaterd.release.kits.description import Kit, filled

SYSTEM = "multi-user.target"
PERSON = "default.target"
ROOT = layout.ROOT
CARRIED = "release"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a package: its bytes and rights."""

    data: bytes
    mode: int = 0o644


def of_machine(kit: Kit, carried: Mapping[str, bytes]) -> dict[str, File]:
    """Return what a package installs, by path below `/`.

    Args:
        kit: what it is for.
        carried: files of the repository that come along, by their paths there.
    """
    own = f"usr/lib/{kit.daemon}"
    fragment = settings(kit, root=kit.root, target=SYSTEM, first=f"/{own}/{ROOT}")
    texts = {
        f"{own}/conf.d/50-{kit.product}.toml": fragment,
        f"usr/lib/sysusers.d/{kit.daemon}.conf": (
            f'u {kit.daemon} - "updaterd for {kit.product}" '
            f"/var/lib/{kit.daemon} /usr/sbin/nologin\n"
        ),
        f"usr/share/doc/{kit.name}/copyright": (
            f"{kit.title}: the configuration of updaterd for it.\n"
            f"Made by {kit.publisher}. What it installs has terms of its own.\n"
        ),
    }
    for name, text in kit.units.items():
        path = f"usr/lib/systemd/system/{name}"
        texts[path] = filled(text, root=kit.root, target=SYSTEM)
    for name, text in kit.desktop.items():
        path = f"usr/share/applications/{name}"
        texts[path] = filled(text, root=kit.root, target=SYSTEM)
    files = {path: File(text.encode()) for path, text in texts.items()}
    files[f"{own}/{ROOT}"] = File(kit.bootstrap)
    files[f"usr/share/polkit-1/actions/{_action(kit)}.policy"] = File(
        _POLICY.format(
            vendor=escape(kit.publisher),
            action=_action(kit),
            title=escape(kit.title),
            user=kit.daemon,
        ).encode()
    )
    for path, data in carried.items():
        files[f"{own}/{CARRIED}/{path}"] = File(data)
    return dict(sorted(files.items()))


_POLICY = """\
<!DOCTYPE policyconfig PUBLIC
  "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <vendor>{vendor}</vendor>
  <action id="{action}">
    <description>Look for, postpone, apply or hold updates of {title}</description>
    <message>Changing when {title} is updated needs authentication</message>
    <defaults>
      <allow_any>auth_admin</allow_any>
      <allow_inactive>auth_admin</allow_inactive>
      <allow_active>yes</allow_active>
    </defaults>
    <annotate key="org.freedesktop.policykit.owner">unix-user:{user}</annotate>
  </action>
</policyconfig>
"""


def _action(kit: Kit) -> str:
    """Return what polkit calls changing this product; as `api/polkit.py` asks."""
    return f"io.updaterd.change.{kit.product.replace('_', '.')}"


def of_person(kit: Kit, carried: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what the installer puts into a person's places, by a path of its own.

    `{root}`, `{target}` and `{first}` are written out there: they lie in a home.
    """
    fragment = settings(kit, root="{root}", target="{target}", first="{first}")
    files = {
        f"conf.d/50-{kit.product}.toml": fragment.encode(),
        ROOT: kit.bootstrap,
        **{f"units/{name}": text.encode() for name, text in kit.units.items()},
        **{f"desktop/{name}": text.encode() for name, text in kit.desktop.items()},
        **{f"{CARRIED}/{path}": data for path, data in carried.items()},
    }
    return dict(sorted(files.items()))


def settings(kit: Kit, *, root: str, target: str, first: str) -> str:
    """Return the fragment of the configuration."""
    document = filled(dict(kit.settings), root=root, target=target)
    document["trust"] = {**document["trust"], "root": first}
    document["products"] = {
        kit.product: {**document["products"][kit.product], "root": root}
    }
    head = f"# {kit.title}, by {kit.publisher}: kit {kit.version}.\n"
    own = "# What you write in updaterd.toml or in a conf.d of your own is stronger.\n"
    return head + own + "\n".join(_tables(document, ()))


def _tables(table: Mapping[str, object], at: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    lines = []
    if plain or not table:
        lines += [f"\n[{'.'.join(map(_key, at))}]"] if at else []
        lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _tables(value, (*at, key))
    return [*lines, ""] if not at else lines


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _value(name)


def _value(value: object) -> str:
    """Return a value as TOML; JSON's strings, numbers and lists are TOML's."""
    if isinstance(value, dict):  # in a list
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def scripts(kit: Kit) -> dict[str, str]:
    """Return the package's scripts; what they do is `updaterd kit`'s, twice or once."""
    head = "#!/bin/sh\nset -e\n"
    daemon, product = kit.daemon, kit.product
    return {
        "postinst": f"""{head}case "$1" in
configure|1|2)
    systemd-sysusers /usr/lib/sysusers.d/{daemon}.conf
    updaterd kit up {product}
    ;;
esac
""",
        "prerm": f"""{head}case "$1" in
remove)
    updaterd kit down {product}
    ;;
0)
    updaterd kit down --purge {product}
    ;;
esac
""",
        "postrm": f"""{head}if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
# Its daemon's own things; the application's data is nobody's to delete here.
if [ "$1" = purge ]; then
    for folder in /var/lib/{daemon} /var/cache/{daemon}; do
        if grep -q " $folder[/ ]" /proc/self/mountinfo; then
            echo "{kit.name}: $folder was left: something is mounted there" >&2
        else
            rm -rf "$folder"
        fi
    done
fi
""",
    }
