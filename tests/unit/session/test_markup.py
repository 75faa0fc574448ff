# SPDX-License-Identifier: Apache-2.0
"""A reason that holds markup is shown as text by desktops that read it."""

from types import SimpleNamespace

import pytest
from jeepney import HeaderFields, MessageType

from updaterd.session.desktop import Desktop
from updaterd.session.notices import Notice

EVIL = '<a href="https://evil.example">fix</a><img src="https://evil.example/x"> & co'


class Router:
    def __init__(self, can):
        self._can = can
        self.notified = []

    async def send_and_get_reply(self, message):
        body = (7,)
        if message.header.fields[HeaderFields.member] == "GetCapabilities":
            body = (self._can,)
        else:
            self.notified = message.body
        header = SimpleNamespace(message_type=MessageType.method_return)
        return SimpleNamespace(header=header, body=body)


@pytest.mark.parametrize("can", [["body", "body-markup"], ["body"]])
async def test_markup_of_others_is_text(can):
    router = Router(can)
    desktop = Desktop(router, print)
    await desktop.show(Notice(("acme", "rolled_back", "2"), "Acme 2", EVIL))
    shown = router.notified[4]
    assert ("<" in shown) == ("body-markup" not in can)
    assert "evil.example" in shown
