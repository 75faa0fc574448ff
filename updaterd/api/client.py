# SPDX-License-Identifier: Apache-2.0
"""Ask `io.updaterd.Updater` in a few lines, for commands that must start fast."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from updaterd.api import interface
from updaterd.errors import TransientError

_SYSTEM = Path("/run")
_SOCKET = "io.updaterd"
PLACE = _SYSTEM / "updaterd" / _SOCKET
"""Of the system's first daemon."""

Naming = Callable[[str], frozenset[str]]
"""Returns the products that root's configuration of a daemon names."""

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


def places(
    product: str = "", *, system: Path = _SYSTEM, named_by: Naming | None = None
) -> Iterator[Path]:
    """Yield where sockets may be: those of this user's daemons, then the system's.

    Args:
        product: what is asked about; only who may speak for it is named then. A kit's
            daemon has its product's name and speaks for it before any other.
        system: folder of the runtime directories of the system's daemons.
        named_by: see `subjects`.
    """
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    for runtime in (*([Path(own)] if own.startswith("/") else []), system):
        names = {path.name for path in runtime.glob("updaterd-*")} - _OTHERS
        named = f"updaterd-{product}"
        first = [named] if named in names else []
        for name in dict.fromkeys((*first, "updaterd", *sorted(names))):
            place = runtime / name / _SOCKET
            heard = None  # what others' configurations say is not read for nothing
            if product and name != named:
                heard = subjects(place, system=system, named_by=named_by)
            if heard is None or product in heard:
                yield place


def subjects(
    place: Path, *, system: Path = _SYSTEM, named_by: Naming | None = None
) -> frozenset[str] | None:
    """Return the products that the daemon at a socket may speak for; None: all.

    The system's first daemon is its owner's, and a person's are his own. Any other is a
    publisher's: it is heard of the product that it is named after, and of what root
    wrote into its configuration, not of what it invents.

    Args:
        place: the socket.
        system: see `places`.
        named_by: returns what the configuration of a daemon of the system names, by the
            name of its folders; None: as it is in /etc and /usr/lib.
    """
    folder = place.parent.name
    if place.parent.parent != system or folder == PLACE.parent.name:
        return None
    _, _, name = folder.partition("-")
    return (named_by or _configured)(folder) | {name}


def _configured(folder: str) -> frozenset[str]:
    """Return the products that the configuration of a daemon of the system's names."""
    from updaterd.config import (  # noqa: PLC0415 - rarely asked
        ConfigError,
        fragments,
        sources,
    )

    try:
        files = sources(Path("/etc", folder, "updaterd.toml"))
        products = fragments.merge(files).values.get("products")
    except ConfigError:  # not for us to read
        return frozenset()
    return frozenset(products) if isinstance(products, dict) else frozenset()


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
