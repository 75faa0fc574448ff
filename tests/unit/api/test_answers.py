# SPDX-License-Identifier: Apache-2.0
"""Who asks a daemon reads what another publisher's may have written."""

import socket
from contextlib import closing

import pytest

from updaterd.api.client import Client, UnreachableError


@pytest.mark.parametrize(
    "answer", [b"7", b"[]", b'{"parameters":[1]}', b"[" * 10**5, b"{"]
)
def test_an_answer_that_is_none_is_told_as_such(tmp_path, answer):
    """A socket may be another publisher's; who asks goes on to the next."""
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(str(tmp_path / "s"))
        ear.listen()
        with closing(Client(tmp_path / "s")) as client, ear.accept()[0] as other:
            other.sendall(answer + b"\0")
            with pytest.raises(UnreachableError):
                client.call("List")
