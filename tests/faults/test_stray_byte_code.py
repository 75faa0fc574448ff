# SPDX-License-Identifier: Apache-2.0
"""Python compiled modules into a signed tree: it is whole once they are gone."""

import py_compile

import pytest
from fakes.releases import Releases, clone
from fakes.trees import make_tree, snapshot
from fakes.worker import product_of, update, worker

from updaterd.errors import BrokenError
from updaterd.pipeline import by_hand


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """A program in Python; 1.0.0 and 1.1.0 are installed, one after the other."""
    found = Releases(tmp_path_factory.mktemp("python"))
    machine = found.machine(found.root / "machine")
    for version in ("1.0.0", "1.1.0"):
        tree = make_tree(
            found.root / "trees" / version,
            {
                "bin/healthcheck": "#!/bin/sh\nexit 0\n",
                "lib/app/main.py": f"print({version!r})\n",
                "lib/data/table": version,
            },
        )
        found.site.push(tree, version, announce=False)
        found.trees[version] = snapshot(tree)
        machine("update", "acme")
    clone(machine.root, found.root / "template")
    found.updated = machine
    yield found
    found.close()


@pytest.fixture
def machine(releases):
    clone(releases.root / "template", releases.updated.root)
    return releases.updated


def dirty(machine, version) -> None:
    module = machine.app / "releases" / version / "lib/app/main.py"
    py_compile.compile(str(module))
    assert (module.parent / "__pycache__").is_dir()


def test_release_with_byte_code_in_it_can_be_returned_to(releases, machine):
    """As older versions left it in updaterd's own releases."""
    dirty(machine, "1.0.0")
    with worker(machine) as services:
        by_hand.roll_back(product_of(machine), services)
    assert "1.0.0" == machine.running
    assert releases.trees["1.0.0"] == snapshot(machine.current)


def test_repair_takes_byte_code_away_and_restarts_nothing(releases, machine):
    dirty(machine, "1.1.0")
    with worker(machine) as services:
        found = by_hand.verify(product_of(machine), services, repair=False)
        assert ["lib/app/__pycache__"] == [one.path for one in found.problems]

        fixed = by_hand.verify(product_of(machine), services, repair=True)

        assert (True, 0) == (fixed.repaired, fixed.bytes_fetched)
        assert [] == services.manager.calls
        assert "current" == update(machine, services).result
    assert releases.trees["1.1.0"] == snapshot(machine.current)


@pytest.mark.parametrize("name", ["lib/data/__pycache__/x.pyc", "lib/app/other.pyc"])
def test_what_is_beside_no_module_of_the_release_is_damage(machine, name):
    path = machine.app / "releases/1.0.0" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    with worker(machine) as services, pytest.raises(BrokenError, match="damaged"):
        by_hand.roll_back(product_of(machine), services)
    assert path.exists()
