# SPDX-License-Identifier: Apache-2.0
"""What is said of the interface: its description, and how parameters are read.

A method or a field may be added; what is there is never changed. Times are Unix
seconds.
"""

import math
from collections.abc import Mapping
from typing import Any

from updaterd.api.wire import OURS, invalid

NAME = OURS

DESCRIPTION = f"""\
# The applications that updaterd keeps up to date on this machine.
# Times are Unix seconds.
interface {NAME}

# How far a download is, in bytes.
type Progress (done: int, total: int, percent: int)

# How a product stands. `state` is one of: not_installed, current, waiting,
# preparing, fetching, building, ready, activating, rolling_back, rolled_back, failed.
# `code` and `reason` are those of `updaterd status`; `deadline` is when a release that
# is ready is activated, whatever asks it to wait.
type Product (
  name: string,
  channel: string,
  root: string,
  state: string,
  code: string,
  reason: string,
  installed: ?string,
  target: ?string,
  ready: ?string,
  held: bool,
  deadline: ?int,
  progress: ?Progress
)

# For everybody.
method List() -> (products: []string)
method Status(product: string) -> (status: Product)
# With `more`: the state now, and again whenever it changes.
method Monitor(product: string) -> (status: Product)

# For root, the daemon's user, the product's `users` and `groups`, and whom polkit
# allows it (io.updaterd.change): by default the active session of the desktop.

# Look now, and install nothing.
method Check(product: string) -> (code: string, reason: string, version: ?string)
# Look now, and do what is to be done.
method Update(product: string) -> ()
# Activate what is ready at that time, not before; the answer has the time that counts.
method Postpone(product: string, until: int) -> (until: int)
# Activate what is ready now.
method Apply(product: string) -> (version: string)
# Install nothing until that time, or until Unhold.
method Hold(product: string, until: ?int, reason: ?string) -> ()
method Unhold(product: string) -> ()
# Activate nothing as long as this connection is open, at most until the deadline.
method Inhibit(product: string, why: string) -> ()

error NoSuchProduct (product: string)
# There is no release that waits to be activated.
error NothingReady (product: string)
# It could not be done: what happened, and what to do.
error Failed (code: string, message: string)
"""

SERVICE_DESCRIPTION = """\
# What a service says of itself.
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""

_LONGEST_TEXT = 1024


def text(parameters: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return a parameter that is text.

    Raises:
        CallError: it is missing without a default, is none, or is too long.
        invalid: the same.
    """
    value = parameters.get(name)
    if value is None:
        value = default
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise invalid(name)
    return value.encode(errors="replace").decode()


def moment(
    parameters: Mapping[str, Any], name: str, default: float | None = None
) -> float:
    """Return a parameter that is a time.

    Raises:
        CallError: it is missing without a default, or is none.
        invalid: the same.
    """
    value = parameters.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(name)
    try:
        seconds = float(value)
    except OverflowError:
        raise invalid(name) from None
    if not math.isfinite(seconds):
        raise invalid(name)
    return seconds


def only(parameters: Mapping[str, Any], *names: str) -> None:
    """Check that there are no other parameters: a typo must not pass for a default.

    Raises:
        CallError: there is one.
        invalid: the same.
    """
    for name in parameters:
        if name not in names:
            raise invalid(name)
