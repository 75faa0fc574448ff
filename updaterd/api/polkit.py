# SPDX-License-Identifier: Apache-2.0
"""Ask polkit whether a caller may change a product: the session of a desktop.

Where there is no polkit, no system bus or no jeepney (extra `desktop`), the answer is
no. The subject is the process by its number, its start and its user. Whoever connects
may hand the connection on and end, and have another process get the number: the answer
counts only if the one that connected is still there afterwards.
"""

import asyncio
from weakref import WeakValueDictionary

from updaterd.api.callers import Caller
from updaterd.system import presence

ACTION = "io.updaterd.change"
_PATIENCE_S = 120.0  # a person may be typing a password
_INTERACTIVE = 1

_turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()


def action_of(daemon: str) -> str:
    """Return the action that a daemon asks about: a kit's has one of its own.

    polkit answers questions about others to root and to the users whom an action
    names. The name of a product may have an underscore, that of an action may not.

    Args:
        daemon: "updaterd", or "updaterd-NAME".
    """
    _, _, name = daemon.partition("-")
    return f"{ACTION}.{name.replace('_', '.')}" if name else ACTION


async def allows(caller: Caller, product: str, *, action: str = ACTION) -> bool:
    """Tell whether polkit lets a caller change a product.

    One question of a user at a time: each may wait for minutes, and the threads that
    ask are few.
    """
    turn = _turns.get(caller.uid)
    if turn is None:
        turn = _turns[caller.uid] = asyncio.Lock()
    async with turn:
        allowed = await asyncio.to_thread(_ask, caller, product, action)
    return allowed and caller.is_there()


def _ask(caller: Caller, product: str, action: str) -> bool:
    try:
        from jeepney import DBusAddress, MessageType, new_method_call  # noqa: PLC0415 - rarely asked
        from jeepney.io.blocking import open_dbus_connection  # noqa: PLC0415 - as above
    except ImportError:
        return False
    authority = DBusAddress(
        "/org/freedesktop/PolicyKit1/Authority",
        bus_name="org.freedesktop.PolicyKit1",
        interface="org.freedesktop.PolicyKit1.Authority",
    )
    process = {
        "pid": ("u", caller.pid),
        # 0, where it is not shown to us: polkit looks for itself then
        "start-time": ("t", presence.ticks(str(caller.pid)) or 0),
        "uid": ("i", caller.uid),
    }
    question = new_method_call(
        authority,
        "CheckAuthorization",
        "(sa{sv})sa{ss}us",
        (("unix-process", process), action, {"product": product}, _INTERACTIVE, ""),
    )
    try:
        with open_dbus_connection("SYSTEM") as bus:
            answer = bus.send_and_get_reply(question, timeout=_PATIENCE_S)
        if answer.header.message_type is not MessageType.method_return:
            return False
        return answer.body[0][0] is True
    except (OSError, TimeoutError, ValueError, KeyError, IndexError, TypeError):
        return False
