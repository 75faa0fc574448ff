# SPDX-License-Identifier: Apache-2.0
"""Kill a publisher at every request to a bucket; what is there must be right.

    python tests/faults/destinations.py                   push, sync, gc: every request
    python tests/faults/destinations.py --of push-to      one of them

Every file call of the same to a directory: tests/faults/killpoints.py.

The bucket is in a server of its own (moto's S3), behind a gate that passes requests on
one by one. A traced run says how many there are. In a later one the gate kills the
publisher before the server sees the request, or after it was carried out and before
anybody was told, or answers that the server failed. Then python-tuf reads the bucket
over HTTP and must be offered the release before or the new one, with everything that
it leads to; and the command, repeated, must end well with the new one there.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # as a command; pytest has its own pythonpath
    sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.deliveries import BUCKETS
from fakes.starter import import_everything

MODES = ("before", "after", "lost")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--of", default=",".join(BUCKETS), help="which commands")
    parser.add_argument("--step", type=int, default=1, help="every N-th request")
    arguments = parser.parse_args()
    import_everything()
    failures = 0
    cloud = None
    for name in arguments.of.split(","):
        root = Path(tempfile.mkdtemp(prefix="destinations-"))
        bench = BUCKETS[name](root / "bench")
        cloud = bench.cloud
        failures += campaign(name, bench, arguments.step)
        bench.close()
        cloud.close()
        shutil.rmtree(root)
    return 1 if failures else 0


def campaign(name: str, bench, step: int) -> int:
    """Try every request in every mode; return how many failed."""
    began = time.monotonic()
    requests = bench.count()
    failures = count = 0
    print(f"{name} to a bucket: {requests} requests", flush=True)
    for number in range(1, requests + 1, step):
        for mode in MODES:
            count += 1
            if found := bench.interrupted(number, mode):
                failures += 1
                print(
                    f"FAILED {name}:{number}:{mode}", *found, sep="\n    ", flush=True
                )
    took = time.monotonic() - began
    print(
        f"{name} to a bucket: {requests} requests, {count} points tried, "
        f"{failures} failures, {took:.0f} s",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    sys.exit(main())
