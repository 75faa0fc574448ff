"""What a client would pay, at least, to re-aim the references of a program.

    benchmarks/references.py FILE

Finds calls, jumps and RIP-relative loads in x86-64 code by their opcodes, and turns
each relative reference into an absolute one: no disassembly, no jump tables, no map
of what was copied where. A delta that projects references does all that besides
(docs/decisions/0013-no-projection-of-references.md).
"""

import re
import sys
import time
from pathlib import Path
from struct import Struct

OPCODES = re.compile(
    rb"[\xe8\xe9]|\x0f[\x80-\x8f]|[\x48\x4c][\x8b\x8d][\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
)


def main() -> None:
    data = Path(sys.argv[1]).read_bytes()
    started = time.process_time()
    out = bytearray(data)
    read, write = Struct("<i").unpack_from, Struct("<I").pack_into
    found = 0
    for match in OPCODES.finditer(data, 0, len(data) - 4):
        place = match.end()
        if place + 4 <= len(data):
            target = place + 4 + read(data, place)[0]
            if 0 <= target < len(data):
                write(out, place, target)
                found += 1
    spent = time.process_time() - started
    print(f"{len(data):,} bytes, {found:,} references: {spent:.2f} CPU s")


if __name__ == "__main__":
    main()
