# SPDX-License-Identifier: Apache-2.0
"""A grant for a unit whose file others write would be a grant to be root."""

import pytest
from fakes.people import DAEMON, give

from updaterd.install import unit_files

UNIT = "[Service]\nExecStart=/bin/true\n"


@pytest.fixture
def folder(ground):
    found = ground / "units"
    found.mkdir()
    (found / "acme.service").write_text(UNIT)
    (found / "web@.service").write_text(UNIT)
    return found


@pytest.mark.parametrize("unit", ["acme.service", "web@1.service"])
def test_a_file_of_roots_is_granted(folder, unit):
    assert "" == unit_files.fault(unit, (str(folder),))


@pytest.mark.parametrize(
    "attack", ["absent", "misspelt", "given", "open", "linked", "masked", "folder"]
)
def test_a_unit_that_is_not_there_or_not_roots_is_not_granted(folder, ground, attack):
    """systemd-run makes one that is not there; one that others write is theirs."""
    unit, file = "acme.service", folder / "acme.service"
    if attack == "absent":
        file.unlink()
    elif attack == "misspelt":
        unit = "amce.service"
    elif attack == "given":
        give(file, DAEMON)
    elif attack == "open":
        file.chmod(0o666)
    elif attack == "folder":
        give(folder, DAEMON)
    else:
        file.unlink()
        (ground / "theirs").write_text(UNIT)
        give(ground / "theirs", DAEMON)
        file.symlink_to("/dev/null" if attack == "masked" else ground / "theirs")
    assert unit_files.fault(unit, (str(folder),))


def test_the_first_file_counts(folder, ground):
    """As for systemd: what stands in /etc comes before what a package brings."""
    first = ground / "etc"
    first.mkdir()
    (first / "acme.service").write_text(UNIT)
    give(first / "acme.service", DAEMON)
    assert unit_files.fault("acme.service", (str(first), str(folder)))
