# SPDX-License-Identifier: Apache-2.0
"""What a person pays for, as a real bus, a mocked NetworkManager and sysfs tell it."""

import asyncio
import os
from dataclasses import replace

import pytest
from fakes.bus import bus

from updaterd.api import polkit
from updaterd.api.callers import Caller
from updaterd.system import surroundings

pytestmark = pytest.mark.slow

MANAGER = "org.freedesktop.NetworkManager"
AUTHORITY = "org.freedesktop.PolicyKit1"


@pytest.fixture(scope="module")
def system_bus(tmp_path_factory):
    with bus(tmp_path_factory.mktemp("bus")) as running:
        yield running


@pytest.fixture
def on_the_bus(system_bus, monkeypatch):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", system_bus.address)
    return system_bus


@pytest.fixture(scope="module")
def manager(system_bus):
    with system_bus.mock("networkmanager", MANAGER):
        path = "/org/freedesktop/NetworkManager"
        mock = "org.freedesktop.DBus.Mock"
        system_bus.call(
            MANAGER, path, mock, "AddProperty", "ssv", MANAGER, "Metered", ("u", 0)
        )

        def tell(value):
            system_bus.call(
                MANAGER, path, mock, "UpdateProperties", "sa{sv}", MANAGER,
                {"Metered": ("u", value)},
            )  # fmt: skip

        yield tell


def test_without_a_network_manager_no_network_is_metered(on_the_bus):
    assert not surroundings.is_metered()


def test_without_a_bus_no_network_is_metered(monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    assert not surroundings.is_metered()


@pytest.mark.parametrize(
    ("told", "metered"), [(0, False), (1, True), (2, False), (3, True), (4, False)]
)
def test_network_managers_word_counts_also_its_guess(
    on_the_bus, manager, told, metered
):
    manager(told)
    assert surroundings.is_metered() is metered


def test_polkits_word_counts_and_without_it_the_answer_is_no(on_the_bus):
    caller = Caller(os.getpid(), os.getuid(), frozenset())

    def ask():
        return asyncio.run(polkit.allows(caller, "acme"))

    assert not ask(), "nobody is there"
    with on_the_bus.mock("polkitd", AUTHORITY):
        assert not ask(), "nothing is allowed"
        on_the_bus.call(
            AUTHORITY, "/org/freedesktop/PolicyKit1/Authority",
            "org.freedesktop.DBus.Mock", "SetAllowed", "as", [polkit.ACTION],
        )  # fmt: skip
        assert ask()
        gone = replace(caller, process=-1)  # its number may be another session's now
        assert not asyncio.run(polkit.allows(gone, "acme"))


def supply(folder, name, **values):
    (folder / name).mkdir()
    for key, value in values.items():
        (folder / name / key).write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ({}, False),
        ({"AC": {"type": "Mains", "online": 1}}, False),
        ({"AC": {"type": "Mains", "online": 0}}, False),
        ({"BAT": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT": {"type": "Battery", "status": "Full"}}, False),
        (
            {
                "AC": {"type": "Mains", "online": 0},
                "BAT": {"type": "Battery", "status": "Discharging"},
            },
            True,
        ),
        (
            {
                "AC": {"type": "USB", "online": 1},
                "BAT": {"type": "Battery", "status": "Discharging"},
            },
            False,
        ),
        (
            {"mouse": {"type": "Battery", "status": "Discharging", "scope": "Device"}},
            False,
        ),
        ({"odd": {}}, False),
    ],
)
def test_on_battery_as_the_kernel_lists_it(tmp_path, supplies, battery):
    for name, values in supplies.items():
        supply(tmp_path, name, **values)
    assert surroundings.is_on_battery(tmp_path) is battery


def test_on_battery_where_nothing_is_listed(tmp_path):
    assert not surroundings.is_on_battery(tmp_path / "none")
