# SPDX-License-Identifier: Apache-2.0
"""A publisher's daemon invents products: nobody hears it, and it takes no room."""

import pytest

from updaterd.api.client import places, subjects


@pytest.fixture
def system(tmp_path, monkeypatch):
    """The runtime directories of the first daemon, two kits and an owner's."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    for name in ("updaterd", "updaterd-acme", "updaterd-evil", "updaterd-office"):
        (tmp_path / name).mkdir()
    return tmp_path


def told(folder):
    """Root's configuration gives products to one of them only."""
    return frozenset({"letters", "sums"} if folder == "updaterd-office" else ())


def speakers(system, product):
    found = places(product, system=system, named_by=told)
    return [place.parent.name for place in found]


def test_a_kits_daemon_is_not_asked_about_what_is_not_its_own(system):
    """Else it would say where the program lies that a person starts."""
    assert ["updaterd-acme", "updaterd"] == speakers(system, "acme")
    assert ["updaterd", "updaterd-office"] == speakers(system, "letters")
    assert ["updaterd"] == speakers(system, "nobodys")
    assert 4 == len(speakers(system, ""))


def test_a_kits_daemon_is_heard_of_its_own_product_only(system):
    """However many it lists: who follows them has a thread for each."""
    evil, office, first = (
        subjects(system / name / "io.updaterd", system=system, named_by=told)
        for name in ("updaterd-evil", "updaterd-office", "updaterd")
    )
    assert {"evil"} == evil
    assert {"office", "letters", "sums"} == office
    assert first is None


def test_a_persons_own_daemons_are_his_to_believe(system, tmp_path, monkeypatch):
    own = tmp_path / "1000"
    (own / "updaterd-toys").mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
    assert "updaterd-toys" in speakers(system, "letters")
    assert subjects(own / "updaterd-toys" / "io.updaterd", system=system) is None


def test_a_configuration_that_is_not_there_gives_a_daemon_nothing_more(system):
    place = system / "updaterd-no-such-kit" / "io.updaterd"
    assert {"no-such-kit"} == subjects(place, system=system)
