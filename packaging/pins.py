# SPDX-License-Identifier: Apache-2.0
"""The wheels that the packages bring: for which Pythons, pinned by version and hash."""

import hashlib
import re
import sys
import tempfile
from pathlib import Path

import project

LOCK = Path(__file__).resolve().parent / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = (34, 28, 27, 26, 24, 17, 12, 5)  # 2.N; Debian 12 has 2.36
# What only the first patches of a Python want: Debian 12 has 3.11.2, and pip judges
# by the Python that it runs on. tests/packaging compares with what the wheels ask for.
EARLY = {"server": ("async-timeout>=4.0.3",)}


def canonical(name):
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra=None):
    declared = project.table()
    if not extra:
        return declared["dependencies"]
    return [*declared["optional-dependencies"][extra], *EARLY.get(extra, ())]


def applies(requirement, python):
    """Tell whether `python` wants it. (pip asks the Python it runs on instead.)"""
    newest = requirement.startswith(("backports.zstd", "backports-zstd"))
    return not newest or python != "3.14"  # from there it is in the standard library


def selection(python, machine):
    """Return pip's options for wheels of one Python on one kind of machine."""
    tags = [f"manylinux_2_{n}_{machine}" for n in GLIBC]
    tags += [f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")]
    return [
        *("--only-binary=:all:", "--python-version", python, "--implementation", "cp"),
        *("--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"),
        *(word for tag in tags for word in ("--platform", tag)),
    ]


def lock(pip):
    """Pin what pip would choose now, for every Python and machine."""
    pins = {}
    with tempfile.TemporaryDirectory() as scratch:
        for machine in MACHINES.values():
            for python in PYTHONS:
                folder = Path(scratch, machine, python)
                wants = [
                    *requirements(),
                    *requirements("desktop"),
                    *requirements("server"),
                ]
                project.run(
                    *(*pip, "download", "--quiet", "--dest", folder),
                    *selection(python, machine),
                    *(want for want in wants if applies(want, python)),
                )
                for wheel in folder.glob("*.whl"):
                    name, number = wheel.name.split("-")[:2]
                    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                    pins.setdefault((canonical(name), number), set()).add(digest)
    names = [name for name, _ in pins]
    if len(names) != len(set(names)):
        twice = sorted({name for name in names if names.count(name) > 1})
        sys.exit(f"not one version for all Pythons: {twice}")
    lines = ["# written by `python3 packaging/build.py lock`\n"]
    for (name, number), digests in sorted(pins.items()):
        hashes = "".join(f" \\\n    --hash=sha256:{d}" for d in sorted(digests))
        lines.append(f"{name}=={number}{hashes}\n")
    LOCK.write_text("".join(lines))
    print(f"{LOCK}: {len(pins)} packages")


def pinned():
    """Return the lock's lines by name."""
    blocks = re.split(r"\n(?=\S)", LOCK.read_text().strip())
    return {
        re.split("[= ]", block, maxsplit=1)[0]: block
        for block in blocks
        if not block.startswith("#")
    }


def server_names():
    """Return which of the pinned distributions only the feed server needs."""
    wants = (re.split(r"[<>=\[; ]", want)[0] for want in requirements("server"))
    return {canonical(name) for name in wants} | ({"click"} & set(pinned()))
