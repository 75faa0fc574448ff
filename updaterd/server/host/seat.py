# SPDX-License-Identifier: Apache-2.0
"""A worker's seat: what it inherits from the process that owns the host's feed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from updaterd.server.options import Options

VARIABLE = "UPDATERD_WORKER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What a worker inherits.

    Attributes:
        seat: its part of the shared memory.
        seats: how many parts that has.
        workers: among how many the host's limits are divided.
        memory: descriptor of the shared memory.
        talk: of its end of the conversation with the owner.
        sock: of the listening socket.
        outlives: the socket outlives the service: whoever connects while it restarts
            waits, and is not refused.
        owned: the log is the owner's; else each worker opens its own.
    """

    seat: int
    seats: int
    workers: int
    memory: int
    talk: int
    sock: int
    outlives: bool
    owned: bool

    def write(self) -> str:
        """Return it as it stands in the environment."""
        numbers = (
            *(self.seat, self.seats, self.workers, self.memory, self.talk, self.sock),
            *(int(self.outlives), int(self.owned)),
        )
        return ",".join(map(str, numbers))


def read_seat(environ: Mapping[str, str] = os.environ) -> Seat | None:
    """Return the seat of this process; None when it is nobody's worker."""
    text = environ.get(VARIABLE)
    if text is None:
        return None
    seat, seats, workers, memory, talk, sock, outlives, owned = map(
        int, text.split(",")
    )
    return Seat(
        seat=seat,
        seats=seats,
        workers=workers,
        memory=memory,
        talk=talk,
        sock=sock,
        outlives=bool(outlives),
        owned=bool(owned),
    )


def share_of(options: Options, workers: int) -> Options:
    """Return a worker's options: the host's rates, divided; caps are counted in all."""
    return replace(
        options,
        rate=options.rate / workers,
        publish_rate=options.publish_rate / workers,
        expected_streams=options.expected_streams // workers,
        max_downloads=max(1, options.max_downloads // workers),
        address_file=None,
    )
