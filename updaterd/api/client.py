# SPDX-License-Identifier: Apache-2.0
"""Ask `io.updaterd.Updater` in a few lines, for commands that must start fast."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from updaterd.api import interface
from updaterd.errors import TransientError

_SYSTEM = Path("/run")
_SOCKET = "io.updaterd"
PLACE = _SYSTEM / "updaterd" / _SOCKET
"""Of the system's first daemon."""

_OTHERS = frozenset({"updaterd-feed"})  # no daemon's
_LONGEST = 1 << 20


class RefusedError(TransientError):
    """The answer to a call was an error; `code` is its name without the interface's."""

    code = "api_refused"

    def __init__(self, name: str, parameters: dict[str, Any]) -> None:
        text = parameters.get("message") or name.rpartition(".")[2]
        super().__init__(f"updaterd answers: {text}")
        self.name = name.rpartition(".")[2]


class UnreachableError(TransientError):
    """Nobody answers applications here."""

    code = "api_unreachable"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"updaterd does not answer applications: {why}",
            do="`systemctl enable --now updaterd-api.socket`; for a kit's daemon "
            "updaterd-api@NAME.socket",
        )


def places(product: str = "") -> tuple[Path, ...]:
    """Return where sockets may be: those of this user's daemons, then the system's.

    Args:
        product: what is asked about. A kit's daemon has its product's name and speaks
            for it before any other: what another publisher's says of it is nothing.
    """
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    sockets: dict[Path, None] = {}
    for runtime in (*([Path(own)] if own.startswith("/") else []), _SYSTEM):
        names = {path.name for path in runtime.glob("updaterd-*")} - _OTHERS
        first = [f"updaterd-{product}"] if f"updaterd-{product}" in names else []
        for name in (*first, "updaterd", *sorted(names)):
            sockets[runtime / name / _SOCKET] = None
    return tuple(sockets)


class Client:
    """A connection, for one call after another.

    Args:
        path: the socket; None: the first of `places` that there is.
        patience_s: how long an answer may take; None: as long as it takes.

    Raises:
        UnreachableError: nobody listens there.
    """

    def __init__(self, path: Path | None = None, patience_s: float | None = 10) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(patience_s)
        self._rest = b""
        chosen = path or next(filter(Path.exists, places()), PLACE)
        try:
            self._socket.connect(str(chosen))
        except OSError as error:
            self._socket.close()
            raise UnreachableError(f"{chosen}: {error.strerror}") from error

    def close(self) -> None:
        """End the connection, and what lasts as long as it."""
        self._socket.close()

    def shut(self) -> None:
        """End the connection while another thread waits for an answer."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the answer to a call.

        Raises:
            RefusedError: it is an error.
            UnreachableError: there is none.
        """
        return next(self._ask(method, parameters, more=False))

    def follow(self, method: str, **parameters: object) -> Iterator[dict[str, Any]]:
        """Yield the answers to a call for as long as there are any.

        Raises:
            RefusedError: one is an error.
            UnreachableError: the connection has ended.
        """
        yield from self._ask(method, parameters, more=True)

    def _ask(
        self, method: str, parameters: dict[str, object], *, more: bool
    ) -> Iterator[dict[str, Any]]:
        message: dict[str, object] = {
            "method": f"{interface.NAME}.{method}",
            "parameters": parameters,
        }
        if more:
            message["more"] = True
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\0")
            while True:
                answer = _object(json.loads(self._message()))
                content = _object(answer.get("parameters") or {})
                if "error" in answer:
                    raise RefusedError(str(answer["error"]), content)
                yield content
                if not answer.get("continues"):
                    return
        except (OSError, ValueError, RecursionError) as error:
            raise UnreachableError(str(error)) from error

    def _message(self) -> bytes:
        """Return the next message.

        Raises:
            ConnectionError: there is none.
        """
        while b"\0" not in self._rest:
            data = self._socket.recv(65536)
            if not data or len(self._rest) > _LONGEST:
                raise ConnectionError("the connection has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return message


def _object(value: object) -> dict[str, Any]:
    """Return an object that came.

    Raises:
        ValueError: it is none; who answers may be another publisher's daemon.
    """
    if not isinstance(value, dict):
        raise ValueError("what it says is not understood")  # noqa: TRY004 - of JSON
    return value
