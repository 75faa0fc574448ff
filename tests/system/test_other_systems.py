# SPDX-License-Identifier: Apache-2.0
"""The packages on systems that are not the one they were built on.

Not booted: what differs there is the Python and the C library, and whether the wheels
in the package are for them. Debian 12 has Python 3.11, Debian 13 has 3.13.
"""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from fakes import packages
from fakes.tools import need, need_root

from .conftest import PACKAGES

SUITE, PYTHON = "trixie", "3.13"

# The whole road with what is in the packages: keys, push, server, worker, a delta.
ROAD = r"""
set -eu
cd /srv
updaterd release init r --profile demo --product acme >/dev/null
head -c 300000 /dev/urandom > base
push() {
    mkdir -p "tree/$1"
    cp base "tree/$1/data"
    echo "$1" >> "tree/$1/data"
    updaterd release push "tree/$1" --repo r --product acme --version "$1" \
        --channel stable --no-announce >/dev/null
}
push 1.0.0
updaterd serve --repo r/public --state s --port 0 --address-file address 2>log &
tries=0
until [ -s address ]; do
    tries=$((tries + 1)); [ $tries -lt 600 ] || { cat log; exit 1; }; sleep 0.1
done
cp r/public/metadata/1.root.json /etc/updaterd/root.json
cat > /etc/updaterd/updaterd.toml <<END
[feed]
url = "$(cat address)/v1/events"
[trust]
root = "/etc/updaterd/root.json"
repository = "$(cat address)/repo"
[download]
min_free = "1MiB"
[products.acme]
root = "/opt/acme"
END
install -d -o updaterd /opt/acme
/usr/lib/updaterd/self-test
/usr/lib/updaterd/bin/python -I -c 'import updaterd.artifact._native'
updaterd update acme --demo
push 1.1.0
updaterd update acme --demo
cmp tree/1.1.0/data /opt/acme/current/data
updaterd history --json --limit 1
"""


@pytest.fixture(scope="module")
def root(debian, built, tmp_path_factory):
    """The other Debian, with both packages installed by its own dpkg."""
    found = tmp_path_factory.mktemp(SUITE) / "root"
    found.mkdir(mode=0o755)
    found.parent.chmod(0o755)
    system = debian(SUITE, PACKAGES)
    subprocess.run(["tar", "-C", found, "-xf", system], check=True)
    for package in built.glob("*.deb"):
        shutil.copy(package, found)
    inside(found, "sh", "-c", "dpkg --install /*.deb && dpkg --audit")
    yield found
    shutil.rmtree(found)


def inside(root, *argv):
    """Run a command in the other system; return what it says."""
    done = subprocess.run(
        [
            *("systemd-nspawn", f"--directory={root}", "--quiet", "--register=no"),
            *("--keep-unit", "--pipe", f"--machine=updaterd-other-{os.getpid()}"),
            *argv,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def rpm(root, *words):
    """Run rpm on a tree; return what it says."""
    done = subprocess.run(
        [need("rpm"), "--root", root, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_packages_work_on_another_python(root):
    """Signed, served, fetched, patched, verified: with another Python's extensions."""
    assert f"Python {PYTHON}" in inside(root, "python3", "--version")
    said = inside(root, "sh", "-c", ROAD)
    print(said)
    assert "works here" in said
    last = json.loads(said.splitlines()[-1])
    assert ("1.0.0", "1.1.0") == (last["from_version"], last["version"])
    assert 0 < last["bytes_fetched"] < last["bytes_full"] / 10, "no delta"


QUIET = r"""
import asyncio, pathlib, tempfile
from updaterd.api import process
from updaterd.api.methods import World
path = pathlib.Path(tempfile.mkdtemp(), "socket")
async def nobody(*_): return False
world = World(load=dict, now=float, polkit=nobody)
ear = process.listening(path)
asyncio.run(process.Listener(world, idle_s=0.1).run(ear))
assert path.exists(), "nobody finds it again"
"""


def test_who_answers_applications_leaves_the_socket_to_systemd(root):
    """When it ends for want of company; Python 3.13 would take the file away."""
    inside(root, "/usr/lib/updaterd/bin/python", "-I", "-c", QUIET)


def test_the_rpm_installs_and_verifies(built, tmp_path):
    """What rpm put there is what the package says."""
    need_root()
    alone = ("--nodeps", "--noscripts")
    rpm(tmp_path, "--initdb")
    rpm(tmp_path, "--install", *alone, *built.glob("*.rpm"))
    assert "" == rpm(tmp_path, "--verify", *alone, "updaterd", "updaterd-feed")


def test_the_scripts_of_the_rpm_do_their_work(built, debian, tmp_path):
    """Installed, replaced and erased: users and bytecode come, the right things go.

    Run by rpm itself, in a Debian: there is no system with rpm to be had here. Nothing
    is mounted in it, as where an image is built: no /proc, no /dev/shm.
    """
    need_root()
    root = tmp_path / "root"
    root.mkdir()
    there = debian(SUITE, PACKAGES)
    subprocess.run(["tar", "-C", root, "--exclude=./dev/*", "-xf", there], check=True)
    (root / "dev").mkdir(exist_ok=True)
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    asked = root / "asked"
    systemctl = root / "usr/bin/systemctl"
    systemctl.unlink()
    systemctl.write_text('#!/bin/sh\necho "$*" >> /asked\n')
    systemctl.chmod(0o755)
    (root / "run/systemd/system").mkdir(parents=True)

    def heard(*words):
        asked.write_text("")
        rpm(root, *words)
        return asked.read_text()

    rpms = [*built.glob("*.rpm")]
    library = root / "usr/lib/updaterd"
    rpm(root, "--initdb")
    said = heard("--install", "--nodeps", *rpms)
    assert (
        "try-restart updaterd.service updaterd-api.service updaterd@*.service" in said
    )
    users = (root / "etc/passwd").read_text()
    assert {"updaterd", "updaterd-feed"} <= {
        u.split(":")[0] for u in users.splitlines()
    }
    compiled = len([*library.rglob("*.pyc")])
    assert compiled > 100

    # the new package's script is run before the old one's
    said = heard("--upgrade", "--force", "--nodeps", *rpms)
    assert "disable" not in said
    assert compiled == len([*library.rglob("*.pyc")])

    said = heard("--erase", "--nodeps", "updaterd-feed", "updaterd")
    assert "disable --now updaterd.service" in said
    assert "stop updaterd-api.service updaterd-api@* updaterd@*.service" in said
    assert not library.exists()
    assert users == (root / "etc/passwd").read_text(), "they own what stays"


# What the module says of a program, and Python's own words for it.
COMPARE = r"""
import random, sys
from array import array
sys.path.insert(0, sys.argv[1])
from updaterd.artifact import _native
from updaterd.artifact.programs import image, projector

draw = random.Random(1)
size, base = 200_000, 0x400000
old = bytearray(draw.randbytes(size))
for at in range(0, size - 16, 16):  # calls, jumps, addresses of data, pointers
    near = draw.randrange(-size, size).to_bytes(4, "little", signed=True)
    opcode = draw.choice([b"\xe8", b"\xe9", b"\x0f\x84", b"\x8d\x05"])
    old[at + 3 : at + 3 + len(opcode) + 4] = opcode + near
for at in range(size // 2, size - 8, 24):
    old[at : at + 8] = (base + draw.randrange(size)).to_bytes(8, "little")
half, none = size // 2, [0] * 5
segments = array("q", [0, base, size, size, 1])
regions = array("q", [0, 0, half, *none, 1, half, half, *none])
rows = segments.tobytes(), regions.tobytes(), b""
copies = [array("q", c) for c in ([0, 70_001], [70_001, 129_000], [8, 70_100])]
made = []
for image, projector in (
    (_native.Image(*rows), _native.Projector),
    (image.Image(*rows), projector.Projector),
):
    begun = projector(
        lambda low, high: bytes(old[low:high]),
        array("q", [0]), array("q", [size]), [image],
    )
    begun.aim(image, *copies)
    data = old[: sum(copies[1])]
    begun.project(data, *copies)
    made.append(data)
assert made[0] == made[1] != old[: sum(copies[1])]
"""
SELF_TEST = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from updaterd.cli import main
sys.exit(main(sys.argv[1:]))
"""

_BOTH = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def test_the_package_for_arm64_works_on_arm64(debian, tmp_path):
    """Emulated: its extensions load and work, and ours says what Python says."""
    emulator = need("qemu-aarch64", "qemu-user")
    need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    options = ("--variant=extract", "--architectures=arm64")
    root = tmp_path / "root"
    root.mkdir()
    system = debian("bookworm", "python3,ca-certificates", *options)
    subprocess.run(["tar", "-C", root, "--exclude=./dev/*", "-xf", system], check=True)
    site = packages.build(tmp_path / "built", "--arch", "arm64", kinds="") / "tree"
    (tmp_path / "root.json").write_text("{}")
    config = tmp_path / "updaterd.toml"
    config.write_text(
        f"""
[feed]
url = "https://updates.example.com/v1/events"
[trust]
root = "{tmp_path}/root.json"
repository = "https://updates.example.com/repo"
[products.acme]
root = "{tmp_path}/acme"
"""
    )
    places = [f"--{n}-dir={tmp_path / n}" for n in ("state", "cache", "runtime")]
    # The emulator takes `/` for this root: what both see at one path is mounted in it.
    top = Path(*tmp_path.parts[:2])
    (root / top.relative_to("/")).mkdir(exist_ok=True)
    apart = ["unshare", "--mount", "sh", "-c", _BOTH, "-", top, f"{root}{top}"]
    python = [*apart, emulator, "-L", root, root / "usr/bin/python3", "-I", "-c"]
    done = subprocess.run(
        [*python, COMPARE, site], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr

    words = ("self-test", f"--config={config}", *places)
    done = subprocess.run(
        [*python, SELF_TEST, site, *words], capture_output=True, text=True, check=False
    )
    assert 0 != done.returncode, done
    # Its last step opens a bundle, and an emulator confines nothing: all steps before
    # it are done then.
    assert "cannot install and update: [Errno 22] prctl" in done.stderr, done
