# SPDX-License-Identifier: Apache-2.0
import errno
import socket
import ssl

import httpx
import pytest

from updaterd.feed.failure import of_exception, of_status


def caused(outer, *causes):
    """Return `outer`, raised from each cause in turn."""
    link = outer
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return outer


def os_error(number):
    return OSError(number, "told by the kernel")


NAMED = [
    ("dns", httpx.ConnectError(""), socket.gaierror(socket.EAI_NONAME, "unknown")),
    ("dns", UnicodeError("label too long"), None),
    ("refused", httpx.ConnectError(""), ConnectionRefusedError("no")),
    ("tls", httpx.ConnectError(""), ssl.SSLCertVerificationError("expired")),
    ("tls", ssl.SSLError("bad record"), None),
    ("reset", httpx.ReadError(""), ConnectionResetError("rst")),
    ("reset", httpx.WriteError(""), BrokenPipeError("pipe")),
    ("unreachable", httpx.ConnectError(""), os_error(errno.ENETUNREACH)),
    ("unreachable", httpx.ConnectError(""), os_error(errno.EHOSTUNREACH)),
    ("connect_timeout", httpx.ConnectTimeout(""), None),
    ("idle_timeout", httpx.ReadTimeout(""), None),
    ("idle_timeout", httpx.ReadTimeout(""), ssl.SSLWantReadError("wait")),
    ("proxy", httpx.ProxyError("407"), None),
    ("protocol", httpx.RemoteProtocolError("illegal status line"), None),
    ("closed", httpx.RemoteProtocolError("Server disconnected without"), None),
    ("network", MemoryError("new"), None),
]


@pytest.mark.parametrize(
    ("code", "error", "cause"), NAMED, ids=[f"{i}-{n[0]}" for i, n in enumerate(NAMED)]
)
def test_failures_are_told_apart(code, error, cause):
    failure = of_exception(caused(error, cause) if cause else error, opened=False)
    assert failure.code == code
    assert failure.text


def test_a_vanished_peer_is_half_open_only_once_it_was_open():
    """The kernel's keepalive gave up: not a timeout of ours."""
    error = caused(httpx.ReadError(""), os_error(errno.ETIMEDOUT))
    assert of_exception(error, opened=True).code == "half_open"
    assert of_exception(error, opened=False).code == "connect_timeout"


def test_the_most_telling_of_several_addresses():
    """IPv6 has no route, IPv4 refuses: it is refused."""
    both = ExceptionGroup(
        "all failed", [os_error(errno.ENETUNREACH), ConnectionRefusedError("no")]
    )
    error = caused(httpx.ConnectError(""), OSError("failed"), both)
    assert of_exception(error, opened=False).code == "refused"


def test_a_loop_of_causes_ends():
    one, two = httpx.ReadError("one"), OSError("two")
    one.__cause__, two.__cause__ = two, one
    assert of_exception(one, opened=True).code == "reset"


def test_the_innermost_message_is_told():
    error = caused(httpx.ConnectError("all failed"), OSError("x"), OSError("why"))
    assert "why" in of_exception(error, opened=False).text


def test_a_status_without_a_reason():
    assert of_status(503, "", 0.0).text == "the feed answered 503"


def test_a_redirect_that_makes_no_sense_is_a_persons_to_mend():
    """Whether httpx finds it senseless, or we do: asked again slowly."""
    error = httpx.RemoteProtocolError("Invalid URL in location header: x.")
    failure = of_exception(error, opened=False)
    assert (failure.code, failure.slow) == ("redirect", True)


def test_what_a_server_says_is_told_in_short():
    """A reason as long as headers may be does not fill logs and `status`."""
    loud = "r" * 90_000
    said = of_exception(httpx.RemoteProtocolError(loud), opened=False)
    assert len(said.text) < 500
    assert len(of_status(404, loud, 0.0).text) < 500
