# SPDX-License-Identifier: Apache-2.0
"""Every byte of a small repository's metadata, flipped, and every cut.

Each file at each position: refused with a typed error, or read as exactly what was
signed (a signature's hexadecimal in upper case, say). Never anything else.
"""

from pathlib import Path

import pytest
from fakes.repository import PLATFORM, T0, Publisher

from security.attacks import BOMBS
from updaterd.errors import UpdaterError
from updaterd.net import NotFoundError
from updaterd.trust.client import TrustClient

BASE = "https://updates.example.com/repo/"


class Memory:
    """A fetcher over a dictionary: what the network would bring, without one."""

    deadline_s = 30.0

    def __init__(self, root: Path):
        self.files = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }
        self.override: dict[str, bytes] = {}

    def get(self, url: str, *, limit: int, **_: object) -> bytes:
        del limit
        name = url.removeprefix(BASE)
        data = self.override.get(name, self.files.get(name))
        if data is None:
            raise NotFoundError(404, url)
        return data


class Machine:
    """A trust cache that holds everything but the file that is tampered with."""

    def __init__(self, folder: Path):
        publisher = Publisher(folder / "ops")
        publisher.release("1.0.0")
        repository = publisher.open()
        repository.touch("root")
        repository.commit()
        self.memory = Memory(publisher.public)
        self.root = self.memory.files["metadata/2.root.json"]
        self.bootstrap = publisher.bootstrap
        self.cache = folder / "trust"
        self.codes: set[str] = set()
        self.before = self.look()

    def look(self):
        view = TrustClient(
            cache=self.cache,
            bootstrap=self.bootstrap,
            repository=BASE,
            fetcher=self.memory,
            demo=True,
        ).refresh(now=T0)
        pointer = view.channel("acme", "stable")
        version = pointer.releases[0].version
        return pointer, view.manifest("acme", version, PLATFORM)

    def forget(self, name: str):
        """Drop from the cache what would stand in for the file from the network."""
        if name.startswith("targets/"):
            for path in (self.cache / "manifests").iterdir():
                path.unlink()
            return
        bare = name.removeprefix("metadata/")
        if bare.endswith("root.json"):
            kept = self.cache / "root_history" / bare
        elif bare == "timestamp.json":
            kept = self.cache / bare
        else:
            kept = self.cache / bare.split(".", 1)[1]
        kept.unlink(missing_ok=True)

    def survives(self, name: str, data: bytes) -> bool:
        """Tell whether the machine accepted the file; it must be the same to it."""
        self.forget(name)
        self.memory.override = {name: data}
        try:
            found = self.look()
        except UpdaterError as error:
            self.codes.add(error.code)
            return False
        assert found == self.before
        return True


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("bytes"))


def _names():
    return {
        "root": "2.root.json",
        "timestamp": "timestamp.json",
        "snapshot": ".snapshot.json",
        "targets": "1.targets.json",
        "channel": ".acme.stable.json",
        "releases": ".acme.releases.json",
        "manifest": f".{PLATFORM}.json",
    }


def _file(machine: Machine, kind: str) -> str:
    ending = _names()[kind]
    return max(name for name in machine.memory.files if name.endswith(ending))


@pytest.mark.parametrize("kind", _names())
def test_a_flipped_byte_is_refused_or_harmless(machine, kind):
    """At every position, the lowest bit and the case bit."""
    name = _file(machine, kind)
    good = machine.memory.files[name]
    harmless = 0
    for at in range(len(good)):
        data = bytearray(good)
        data[at] ^= 0x01 if at % 2 else 0x20
        harmless += machine.survives(name, bytes(data))
    print(f"{kind}: {len(good)} positions, {harmless} harmless")
    assert harmless < len(good) / 4
    assert not machine.codes & {"error", "rejected", "transient"}
    assert machine.survives(name, good)


@pytest.mark.parametrize("kind", _names())
def test_a_cut_file_is_refused(machine, kind):
    """Every length short of the whole."""
    name = _file(machine, kind)
    good = machine.memory.files[name]
    for size in range(len(good)):
        assert not machine.survives(name, good[:size]) or not good[size:].strip()
    assert machine.survives(name, good)


@pytest.mark.parametrize("kind", _names())
def test_parser_bombs(machine, kind):
    """Nesting, huge integers, NaN, bad UTF-8 in every file: refused with a code."""
    name = _file(machine, kind)
    machine.codes.clear()
    for bomb in BOMBS.values():
        assert not machine.survives(name, bomb)
    assert not machine.codes & {"error", "rejected", "transient"}
    assert machine.survives(name, machine.memory.files[name])


def test_a_damaged_bootstrap_root_is_refused_or_harmless(machine):
    """The file on this machine's own disk, too: flipped or cut, a typed error."""
    good = machine.bootstrap
    machine.codes.clear()
    for at in range(len(good)):
        for data in (good[:at], good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]):
            machine.bootstrap = data
            machine.survives("metadata/2.root.json", machine.root)
    machine.bootstrap = good
    assert machine.codes <= {"bad_root", "metadata_forged"}
