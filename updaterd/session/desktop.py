# SPDX-License-Identifier: Apache-2.0
"""The desktop's notifications (org.freedesktop.Notifications), by jeepney."""

import asyncio
from collections.abc import Callable
from html import escape
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    MessageType,
    new_method_call,
)
from jeepney.bus_messages import message_bus
from jeepney.io.asyncio import DBusRouter, Proxy

from updaterd.session.notices import Notice

_NAME = "org.freedesktop.Notifications"
_WHERE = DBusAddress("/org/freedesktop/Notifications", bus_name=_NAME, interface=_NAME)
_PATIENCE_S = 10.0
_NORMAL = 1


class Desktop:
    """Shows notices, and hears what a person chose.

    Args:
        router: the connection to the session's bus.
        chosen: called with the key of a notice and of an action.
    """

    def __init__(
        self,
        router: DBusRouter,
        chosen: Callable[[tuple[str, str, str], str], None],
    ) -> None:
        self._router = router
        self._chosen = chosen
        self._open: dict[int, tuple[str, str, str]] = {}
        self._desktop = ""  # the unique name of who showed the last notice

    @property
    def open(self) -> dict[int, tuple[str, str, str]]:
        """Return the notices that are shown, by the desktop's numbers."""
        return dict(self._open)

    async def _ask(self, method: str, signature: str | None, *values: Any) -> Any:
        message = new_method_call(_WHERE, method, signature, values)
        async with asyncio.timeout(_PATIENCE_S):
            answer = await self._router.send_and_get_reply(message)
        if answer.header.message_type is not MessageType.method_return:
            raise OSError(f"no desktop shows notifications: {answer.body}")
        self._desktop = str(answer.header.fields.get(HeaderFields.sender, ""))
        return answer.body

    async def show(self, notice: Notice) -> None:
        """Show a notice, until it is closed.

        Raises:
            OSError: nobody shows it.
        """
        can = (await self._ask("GetCapabilities", None))[0]
        text = notice.body
        if "body-markup" in can:  # a reason may hold what others wrote: no links
            text = escape(text, quote=False)
        words = [word for action in notice.actions for word in action]
        body = await self._ask(
            "Notify",
            "susssasa{sv}i",
            "updaterd",
            0,
            "system-software-update",
            notice.title,
            text,
            words if "actions" in can else [],
            {"urgency": ("y", _NORMAL), "desktop-entry": ("s", notice.key[0])},
            0,  # stays until it is done
        )
        self._open[body[0]] = notice.key

    async def close(self, ident: int) -> None:
        """Take a notice back."""
        self._open.pop(ident, None)
        await self._ask("CloseNotification", "u", ident)

    async def listen(self) -> None:
        """Hear what a person does with notices, until cancelled.

        From who shows them, and nobody else: anything on the bus may send such a
        signal, also out of a sandbox, and a choice may end somebody's work.
        """
        rule = MatchRule(type="signal", interface=_NAME, path=_WHERE.object_path)
        async with asyncio.timeout(_PATIENCE_S):
            await Proxy(message_bus, self._router).AddMatch(rule)
        with self._router.filter(rule) as queue:
            while True:
                signal = await queue.get()
                fields = signal.header.fields
                if fields.get(HeaderFields.sender) != self._desktop:
                    continue
                key = self._open.get(signal.body[0])
                member = fields.get(HeaderFields.member)
                if key is not None and member == "ActionInvoked":
                    self._chosen(key, signal.body[1])
                elif key is not None and member == "NotificationClosed":
                    del self._open[signal.body[0]]
