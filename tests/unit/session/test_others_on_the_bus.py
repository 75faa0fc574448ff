# SPDX-License-Identifier: Apache-2.0
"""Others on the session's bus: markup in a reason, and choices that nobody made."""

import asyncio
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from jeepney import HeaderFields, MessageType

from updaterd.session.desktop import Desktop
from updaterd.session.notices import Notice

EVIL = '<a href="https://evil.example">fix</a><img src="https://evil.example/x"> & co'


class Router:
    """A bus with a desktop, `:1.5`, and signals that are on their way."""

    def __init__(self, can=("body", "actions"), signals=()):
        self._can = list(can)
        self._signals = signals
        self.notified = []

    @contextmanager
    def filter(self, _):
        self.queue = asyncio.Queue()
        for sender, member, *body in self._signals:
            fields = {HeaderFields.sender: sender, HeaderFields.member: member}
            header = SimpleNamespace(fields=fields)
            self.queue.put_nowait(SimpleNamespace(header=header, body=body))
        yield self.queue

    async def send_and_get_reply(self, message):
        body = (7,)
        if message.header.fields[HeaderFields.member] == "GetCapabilities":
            body = (self._can,)
        else:
            self.notified = message.body
        header = SimpleNamespace(
            message_type=MessageType.method_return, fields={HeaderFields.sender: ":1.5"}
        )
        return SimpleNamespace(header=header, body=body)


@pytest.mark.parametrize("can", [["body", "body-markup"], ["body"]])
async def test_markup_of_others_is_text(can):
    router = Router(can)
    desktop = Desktop(router, print)
    await desktop.show(Notice(("acme", "rolled_back", "2"), "Acme 2", EVIL))
    shown = router.notified[4]
    assert ("<" in shown) == ("body-markup" not in can)
    assert "evil.example" in shown


async def test_only_the_desktop_says_what_a_person_chose():
    """Whatever else is on the bus may say it, too, and guess the number of a notice."""
    chosen = []
    signals = (
        (":1.9", "ActionInvoked", 7, "apply"),
        (":1.9", "NotificationClosed", 7, 2),
        (":1.5", "ActionInvoked", 7, "tonight"),
        (":1.5", "NotificationClosed", 7, 2),
    )
    desktop = Desktop(Router(signals=signals), lambda *choice: chosen.append(choice))
    await desktop.show(Notice(("acme", "ready", "2"), "Acme 2", "is ready"))
    listening = asyncio.create_task(desktop.listen())
    async with asyncio.timeout(10):
        while desktop.open:  # noqa: ASYNC110 - until the last signal was heard
            await asyncio.sleep(0)
    listening.cancel()
    assert chosen == [(("acme", "ready", "2"), "tonight")]
