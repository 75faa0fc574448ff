# SPDX-License-Identifier: Apache-2.0
"""The packages as nfpm wants them described: one tree of files, a deb and an rpm."""

import time
from pathlib import Path

import pins
import project

HERE = Path(__file__).resolve().parent


def settings(name, root, kind, arch, when):
    """Return nfpm's configuration of one package."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    feed = name == "updaterd-feed"
    contents = []
    for path in sorted(root.rglob("*")):
        target = "/" + str(path.relative_to(root))
        entry = {"dst": target, "file_info": {"mtime": stamp}}
        if path.is_symlink():
            entry.update(src=str(path.readlink()), type="symlink")
        elif path.is_dir():
            if not target.startswith((
                "/usr/lib/updaterd",
                "/etc/updaterd",
                f"/usr/share/doc/{name}",
            )):
                continue
            entry.update(type="dir")
            entry["file_info"]["mode"] = 0o755
        else:
            entry["src"] = str(path)
            entry["file_info"]["mode"] = path.stat().st_mode & 0o777
            if target.startswith("/etc/"):
                entry["type"] = "config|noreplace" if kind == "rpm" else "config"
        contents.append(entry)
    prefix = "feed-" if feed else ""
    python = "python3 (>= 3.11)" if kind == "deb" else "python3 >= 3.11"
    # the newest C library that a wheel asks for (manylinux_2_34)
    depends = [
        python,
        "systemd",
        "libc6 (>= 2.34)" if kind == "deb" else "glibc >= 2.34",
    ]
    if feed:
        own = (
            f"updaterd (= {project.version()})"
            if kind == "deb"
            else f"updaterd = {project.version()}"
        )
        depends = [own, *depends]
    recipe = {
        "name": name,
        "arch": arch,
        "platform": "linux",
        "version": project.version(),
        "version_schema": "none",
        "section": "admin",
        "priority": "optional",
        "maintainer": project.maintainer(),
        "description": (
            "Feed server and release tools of updaterd\nAnnounces signed releases to "
            "subscribed machines over Server-Sent\nEvents and renews the signatures "
            "that expire. Holds no signing keys\nwhile it serves."
            if feed
            else "Keep applications up to date: pushed, signed, atomic\nSubscribes to "
            "a feed of releases and installs them as verified delta\npatches: signed "
            "metadata, atomic switch, health check, automatic\nrollback. Runs without "
            "root rights."
        ),
        "homepage": project.table()["urls"]["Homepage"],
        "license": project.table()["license"],
        "mtime": stamp,
        "contents": contents,
        "depends": depends,
        "scripts": {
            f"{moment}{step}": str(HERE / "scripts" / f"{prefix}{file}")
            for moment, step, file in (
                ("post", "install", "postinst"),
                ("pre", "remove", "prerm"),
                ("post", "remove", "postrm"),
            )
        },
        "deb": {"compression": "xz"},
        "rpm": {"compression": "zstd", "buildhost": "localhost"},
    }
    if not feed:
        recipe["recommends"] = ["polkitd | policykit-1" if kind == "deb" else "polkit"]
        # byte code is compiled for the Python that is there, its library included
        libraries = [f"/usr/lib/python{python}" for python in pins.PYTHONS]
        watched = ["/usr/bin/python3", *libraries]
        recipe["deb"]["triggers"] = {"interest_noawait": watched}
    return recipe
