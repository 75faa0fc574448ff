# SPDX-License-Identifier: Apache-2.0
"""What a person pays for: is the network metered, does the machine run on battery?

Asked by a worker when it is about to download, never by the daemon.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

_PATIENCE_S = 2.0
_YES, _GUESS_YES = 1, 3  # NMMetered
_SUPPLIES = Path("/sys/class/power_supply")


def is_metered() -> bool:
    """Tell whether NetworkManager takes the network in use for metered.

    False where it is not there, cannot be asked (jeepney is in the extra `desktop`),
    does not answer, or does not know.
    """
    answers: list[bool] = []
    # in a thread: a bus that takes the connection and says nothing has no time limit
    thread = threading.Thread(target=lambda: answers.append(_ask()), daemon=True)
    thread.start()
    thread.join(2 * _PATIENCE_S)
    return answers == [True]


def _ask() -> bool:
    try:
        from jeepney import DBusAddress, MessageFlag, MessageType, Properties  # noqa: PLC0415 - only before large downloads
        from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415 - as above
    except ImportError:
        return False
    manager = DBusAddress(
        "/org/freedesktop/NetworkManager",
        bus_name="org.freedesktop.NetworkManager",
        interface="org.freedesktop.NetworkManager",
    )
    question = Properties(manager).get("Metered")
    question.header.flags |= MessageFlag.no_auto_start
    try:
        with open_dbus_connection("SYSTEM") as bus:
            answer = bus.send_and_get_reply(question, timeout=_PATIENCE_S)
        if answer.header.message_type is not MessageType.method_return:
            return False
        return answer.body[0][1] in (_YES, _GUESS_YES)
    except (OSError, TimeoutError, ValueError, KeyError, IndexError, TypeError):
        return False


def is_on_battery(supplies: Path = _SUPPLIES) -> bool:
    """Tell whether the machine runs on battery, as systemd's ConditionACPower does.

    One supply from outside that is connected is enough; without any, a battery that is
    discharging. A machine without either runs on what it has.

    Args:
        supplies: where the kernel lists them.
    """
    discharging = False
    with suppress(OSError):
        for supply in supplies.iterdir():
            kind = _read(supply / "type")
            if kind in ("Mains", "USB") and _read(supply / "online") not in ("", "0"):
                return False
            if kind == "Battery" and _read(supply / "scope") != "Device":
                discharging |= _read(supply / "status") == "Discharging"
    return discharging


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
