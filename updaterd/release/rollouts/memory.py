# SPDX-License-Identifier: Apache-2.0
"""What `release watch` has not finished: channels to tell the world of, lines to send.

`watch.json` in the workspace. Written before a channel is signed: whoever dies between
signing and telling finds it there, and tells. Lost, it costs no more than that machines
find a halt when they look by themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from updaterd import durable

FILE = "watch.json"


@dataclass(frozen=True, slots=True)
class Memory:
    """What is to be finished.

    Attributes:
        untold: product and channel of what was signed, and not announced yet.
        sent: how many lines of the audit log each webhook has got, or passed over.
    """

    untold: frozenset[tuple[str, str]]
    sent: Mapping[str, int]


def load(folder: Path) -> Memory:
    """Return what is to be finished; nothing, where nothing can be read.

    Raises:
        OSError: the disk refused.
    """
    try:
        document = json.loads((folder / FILE).read_bytes())
        untold = frozenset((str(a), str(b)) for a, b in document["untold"])
        sent = {str(name): int(count) for name, count in document["sent"].items()}
    except FileNotFoundError:
        return Memory(frozenset(), {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Memory(frozenset(), {})
    return Memory(untold, sent)


def save(folder: Path, memory: Memory) -> None:
    """Keep what is to be finished.

    Raises:
        OSError: the disk refused.

    Power cut: as before, or as it is to be.
    """
    if load(folder) == memory:
        return
    document = {"untold": sorted(memory.untold), "sent": dict(memory.sent)}
    durable.write_file(folder / FILE, json.dumps(document).encode())
