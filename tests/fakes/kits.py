# SPDX-License-Identifier: Apache-2.0
"""A publisher's folder for kits, and a person who runs their installers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fakes.tools import need

from updaterd.release.kits import contents, deb

KIT = """
[kit]
version = "1.0"
publisher = "Acme Ltd <it@acme.example>"
unit_files = ["acme.service"]
[updaterd]
packages = ["updaterd_0.2.0_amd64.deb", "updaterd_0.2.0_arm64.deb"]
url = "https://updates.acme.example/kits"
[feed]
url = "https://updates.acme.example/v1/events"
[trust]
repository = "https://updates.acme.example/repo"
[schedule]
window = "Mon..Fri 01:00-05:00"
[products.acme]
root = "/opt/acme"
units = ["acme.service"]
health = { command = ["{root}/current/bin/check", "\\"'\\u00e4"] }
require_attestation = { predicate_type = "https://slsa.dev/provenance/v1", key = "/k" }
"""
# stands for updaterd: it notes what it is asked for
STAND_IN = """
import os, sys
with open(os.path.expanduser("~/asked"), "a") as file:
    print(*sys.argv[1:], file=file)
"""


def package() -> bytes:
    """Return a package like updaterd's, with a program that stands for it."""
    need("xz", "xz-utils")
    files = {
        "usr/lib/updaterd/site/updaterd/__init__.py": contents.File(b""),
        "usr/lib/updaterd/site/updaterd/__main__.py": contents.File(STAND_IN.encode()),
        "usr/lib/systemd/user/updaterd@.service": contents.File(
            b"[Service]\nExecStart=/usr/bin/updaterd run\n"
        ),
        "usr/lib/systemd/user/updaterd-api@.socket": contents.File(
            b"[Socket]\nListenStream=%t/updaterd-%i/io.updaterd\n"
        ),
    }
    data = subprocess.run(
        ["xz", "-1", "-c"],
        input=deb.tar(files, 0, packed=False),
        capture_output=True,
        check=True,
    ).stdout
    members = (("debian-binary", b"2.0\n"), ("data.tar.xz", data))
    return b"!<arch>\n" + b"".join(deb._member(n, d, 0) for n, d in members)


def publisher(folder: Path) -> Path:
    """Fill a folder with all that `kit.toml` names."""
    (folder / "kit.toml").write_text(KIT)
    (folder / "acme.service").write_text(
        "[Service]\nExecStart={root}/current/bin/acme\n[Install]\nWantedBy={target}\n"
    )
    for arch in ("amd64", "arm64"):
        (folder / f"updaterd_0.2.0_{arch}.deb").write_bytes(package())
    return folder


def home_in(folder: Path, name: str = "home") -> Path:
    """Make a home of somebody who is not root."""
    home = folder / name
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        for path in (folder, *folder.parents):
            mode = path.stat().st_mode
            if not mode & 0o001:  # pytest's own; never what others use, such as /tmp
                path.chmod(mode | 0o055)
    return home


def install(script, home, *words, around=(), python=sys.executable):
    """Run the installer as somebody who is not root, with a Python of our own."""
    script = shutil.copy(script, home.parent / "acme-setup.sh")
    plain = os.path.realpath(python)
    bin_ = home.parent / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "python3").unlink(missing_ok=True)
    (bin_ / "python3").symlink_to(plain)
    nobody = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    return subprocess.run(
        [*around, "sh", script, *words],
        env={"HOME": str(home), "PATH": f"{bin_}:/usr/bin:/bin"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        **nobody,
    )
