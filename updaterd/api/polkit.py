# SPDX-License-Identifier: Apache-2.0
"""Ask polkit whether a caller may change a product: the session of a desktop.

Where there is no polkit, no system bus or no jeepney (extra `desktop`), the answer is
no. The subject is the process by its number, its start and its user, so that another
one that got the number since is not meant.
"""

import asyncio
from typing import TYPE_CHECKING

from updaterd.api.callers import Caller
from updaterd.system import presence

if TYPE_CHECKING:
    from jeepney.io.asyncio import DBusRouter

ACTION = "io.updaterd.change"
_PATIENCE_S = 120.0  # a person may be typing a password
_INTERACTIVE = 1


async def allows(caller: Caller, product: str) -> bool:
    """Tell whether polkit lets a caller change a product."""
    try:
        from jeepney.io.asyncio import open_dbus_router  # noqa: PLC0415 - rarely asked
    except ImportError:
        return False
    try:
        async with asyncio.timeout(_PATIENCE_S), open_dbus_router("SYSTEM") as router:
            return await _ask(router, caller, product)
    except (OSError, TimeoutError, ValueError, KeyError):
        return False


async def _ask(router: "DBusRouter", caller: Caller, product: str) -> bool:
    from jeepney import DBusAddress, MessageType, new_method_call  # noqa: PLC0415 - as above

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
        (("unix-process", process), ACTION, {"product": product}, _INTERACTIVE, ""),
    )
    answer = await router.send_and_get_reply(question)
    if answer.header.message_type is not MessageType.method_return:
        return False
    return answer.body[0][0] is True
