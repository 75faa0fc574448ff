# SPDX-License-Identifier: Apache-2.0
"""Varlink on the wire: JSON objects that end with a NUL byte, and the standard errors.

https://varlink.org/Method-Call. One call at a time on a connection; replies come in
the order of the calls.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from updaterd.core.dataclass import dataclass
from updaterd.errors import MalformedError

OURS = "io.updaterd.Updater"
LONGEST = 64 * 1024
"""Of a message, in bytes: a reason and a product's name are short."""
SERVICE = "org.varlink.service"


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asks for.

    Attributes:
        method: its full name.
        parameters: as they came.
        more: the client wants as many replies as there are.
        oneway: it wants none.
    """

    method: str
    parameters: Mapping[str, Any]
    more: bool = False
    oneway: bool = False


class CallError(Exception):
    """An answer that is an error of the interface; `name` is its full name."""

    def __init__(self, name: str, **parameters: object) -> None:
        super().__init__(name)
        self.name = name
        self.parameters = parameters


def invalid(parameter: str) -> CallError:
    """Return the error about a parameter that is missing or not as declared."""
    return CallError(f"{SERVICE}.InvalidParameter", parameter=parameter)


def failed(code: str, message: str) -> CallError:
    """Return the error about what could not be done: its code, and why."""
    return CallError(f"{OURS}.Failed", code=code, message=message)


def denied() -> CallError:
    """Return the error about a caller who may not do what he asks for."""
    return CallError(f"{SERVICE}.PermissionDenied")


async def read(reader: asyncio.StreamReader) -> Call | None:
    """Return the next call; None when the client has closed the connection.

    Raises:
        MalformedError: what came is no call, or too long for one.
    """
    try:
        message = await reader.readuntil(b"\0")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise MalformedError("a message is too long") from error
    return parse(message[:-1])


def parse(message: bytes) -> Call:
    """Return the call in a message, without the byte that ends it.

    Raises:
        MalformedError: it is none.
    """
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise MalformedError("a message is not JSON") from error
    method = value.get("method") if isinstance(value, dict) else None
    if not isinstance(method, str):
        raise MalformedError("a message names no method")
    parameters = value.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise MalformedError("the parameters of a call are no object")
    return Call(
        method,
        parameters,
        more=value.get("more") is True,
        oneway=value.get("oneway") is True,
    )


def reply(parameters: Mapping[str, object], *, continues: bool = False) -> bytes:
    """Return an answer as it is sent."""
    message: dict[str, object] = {"parameters": parameters}
    if continues:
        message["continues"] = True
    return json.dumps(message).encode() + b"\0"


def failure(error: CallError) -> bytes:
    """Return an error as it is sent."""
    message = {"error": error.name, "parameters": error.parameters}
    return json.dumps(message).encode() + b"\0"
