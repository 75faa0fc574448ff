# SPDX-License-Identifier: Apache-2.0
"""Connections to a host by its name, each within one deadline for all of it.

Name servers, several addresses (RFC 8305) and the TLS handshake count together, so
that none of them can make a short-lived process wait for longer than it was told.
"""

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence

_HEAD_START_S = 0.25  # RFC 8305 section 5
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]


def remaining(deadline: float) -> float:
    """Return the seconds until then.

    Raises:
        TimeoutError: there are none.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def over_tls(
    host: str, port: int, tls: ssl.SSLContext, deadline: float
) -> socket.socket:
    """Return a connection over TLS.

    Raises:
        OSError: there is none; TimeoutError: not in time.
    """
    sock = connect(host, port, deadline)
    try:
        sock.settimeout(remaining(deadline))
        return tls.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _resolve(host: str, port: int, deadline: float) -> Sequence[_Address]:
    """Return the addresses of a name, best first; a literal needs no resolver.

    The resolver of the C library knows no deadline, so it is asked in a thread that is
    left alone when it takes too long.

    Raises:
        OSError: there are none.
        TimeoutError: not in time.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    addresses: list[_Address] = []
    errors: list[OSError] = []

    def look_up() -> None:
        try:
            addresses.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(remaining(deadline))
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]
    return addresses


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Return a connection to the first address of a name that answers.

    The next address is tried when one has failed, or has not answered for a while.

    Raises:
        OSError: there is one address, and it failed; or not in time.
        ExceptionGroup: all of several have failed.
    """
    waiting = list(reversed(_resolve(host, port, deadline)))
    attempts: dict[int, socket.socket] = {}
    errors: list[OSError] = []
    poll = select.poll()
    try:
        while waiting or attempts:
            if waiting:
                sock = _begun(waiting.pop(), errors)
                if sock is None:
                    continue
                attempts[sock.fileno()] = sock
                poll.register(sock, select.POLLOUT)
            seconds = remaining(deadline)
            if waiting:
                seconds = min(seconds, _HEAD_START_S)
            for fd, _ in poll.poll(seconds * 1000):
                poll.unregister(fd)
                sock = attempts.pop(fd)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number == 0:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return sock
                sock.close()
                errors.append(OSError(number, os.strerror(number)))
    finally:
        for sock in attempts.values():
            sock.close()
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup("no address of the name can be connected to", errors)


def _begun(address: _Address, errors: list[OSError]) -> socket.socket | None:
    """Return a socket that is connecting; None, and why, where it cannot."""
    family, kind, protocol, _, where = address
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(where)
    except OSError as error:
        if sock is not None:
            sock.close()
        errors.append(error)
        return None
    return sock
