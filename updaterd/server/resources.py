# SPDX-License-Identifier: Apache-2.0
"""What a server process needs of the system: socket, lock, open files, address file."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from updaterd.durable import publish_file
from updaterd.errors import BrokenError
from updaterd.log import get
from updaterd.server.listener import BACKLOG
from updaterd.server.log.contract import EventLog
from updaterd.server.options import Options
from updaterd.server.reports.registry import embedded
from updaterd.server.streams.sink_fast import Takeover
from updaterd.server.streams.streams import Streams
from updaterd.system.locks import hold

_ADOPTED = 3  # where systemd's descriptors begin
_DEAD_PEER_MS = 60_000
_SPARE_FILES = 256
_TAKEN = "give this server a --state of its own, or stop the one that has that"
_LEAST_DOWNLOADS = 64

log = get()


def listen(options: Options, count: int = 1) -> list[socket.socket]:
    """Return listening sockets on one address, between which the kernel distributes.

    Raises:
        BrokenError: the address is taken or not ours.
    """
    sockets = [_listen(options, options.port, shared=count > 1)]
    port = sockets[0].getsockname()[1]
    sockets += [_listen(options, port, shared=True) for _ in range(count - 1)]
    return sockets


def _listen(options: Options, port: int, *, shared: bool) -> socket.socket:
    """Return a listening socket.

    Raises:
        BrokenError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # a peer that vanished without a word is noticed, by every accepted socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
        sock.bind((options.host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BrokenError(
            f"cannot listen on {options.host} port {options.port}: {error}",
            do="choose another --port, or stop what listens there",
            code="listen",
        ) from error
    sock.setblocking(False)
    return sock


def adopted() -> list[socket.socket]:
    """Return the listening sockets that systemd handed over, sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    sockets = [socket.socket(fileno=fd) for fd in range(_ADOPTED, _ADOPTED + count)]
    for sock in sockets:
        sock.setblocking(False)
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)
    return sockets


def url_of(options: Options, sock: socket.socket) -> str:
    """Return the URL of a listening socket: where it is, or what it was told to be."""
    scheme = "https" if options.tls_cert else "http"
    host, port = sock.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}"


def taker_for(options: Options, streams: Streams) -> Takeover | None:
    """Return what makes connections into fast streams; None where they go plainly."""
    return None if options.sink == "asgi" else Takeover(streams)


def file_limits() -> tuple[int, int]:
    """Raise the limit on open files as far as allowed, and share it out.

    Returns:
        How many connections, and how many downloads, which hold a file each besides
        their connection.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    downloads = max(_LEAST_DOWNLOADS, hard // 8)
    return max(hard - _SPARE_FILES - downloads, hard // 2), downloads


@contextmanager
def lock_embedded(event_log: EventLog) -> Iterator[None]:
    """Lock the embedded log: a second server would never hear of its appends.

    The lock lies beside the file, wherever that is: states may differ.

    Raises:
        BusyError: another server has it.
        BrokenError: the lock cannot be made.
    """
    with ExitStack() as held:
        if event_log.file is not None:
            file = event_log.file.resolve()
            path = file.with_name(f"{file.name}.lock")
            try:
                held.enter_context(
                    hold(path, subject=f"the event log {event_log.file}", do=_TAKEN)
                )
            except OSError as error:
                raise BrokenError(
                    f"cannot write {path}: {error}",
                    do="check the directory's owner and free space",
                    code="state_unusable",
                ) from error
        yield


@contextmanager
def lock_reports(options: Options) -> Iterator[None]:
    """Lock the embedded store of reports: its counts are of one writer.

    Raises:
        BusyError: another server has it.
        BrokenError: the lock cannot be made.
    """
    file = embedded(options.reports.url, options.state)
    if options.reports.take == "off" or file is None:
        yield
        return
    path = file.with_name(f"{file.name}.lock")
    with ExitStack() as held:
        try:
            held.enter_context(
                hold(path, subject=f"the store of reports {file}", do=_TAKEN)
            )
        except OSError as error:
            raise BrokenError(
                f"cannot write {path}: {error}",
                do="check the directory's owner and free space",
                code="state_unusable",
            ) from error
        yield


def write_address(path: Path, url: str) -> None:
    """Write the URL at which the server listens, for scripts.

    A full disk is told and does not end the server: its clients know where it is.

    Raises:
        BrokenError: the file cannot be written.
    """
    try:
        publish_file(path, f"{url}\n".encode())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.warning("address_unwritten", path=str(path), error=str(error), url=url)
            return
        raise BrokenError(
            f"cannot write {path}: {error}",
            do="choose another --address-file",
            code="address_file",
        ) from error
