# SPDX-License-Identifier: Apache-2.0
"""What a kind of health check defines, and what it may use."""

from collections.abc import Mapping
from typing import Protocol

from updaterd.core.dataclass import dataclass
from updaterd.core.settings import Health


class Getter(Protocol):
    """What is needed to ask an address; `net.Fetcher` is one."""

    def get(self, url: str, *, limit: int, deadline_s: float) -> bytes:
        """Return the body of a 2xx answer; raise UpdaterError for anything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a check may use beside its settings.

    Attributes:
        getter: asks addresses.
        env: added to the environment of a command.
    """

    getter: Getter
    env: Mapping[str, str]


class Kind(Protocol):
    """What the module of a kind defines."""

    def fault(self, health: Health, means: Means, *, left_s: float) -> str:
        """Ask once; return what is wrong, or nothing, within `left_s` seconds."""
