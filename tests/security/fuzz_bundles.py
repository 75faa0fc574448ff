"""Fuzz the bundle parsers: `python tests/security/fuzz_bundles.py [SECONDS]`.

With atheris installed it is coverage-guided; without, golden bundles are mutated at
random. Anything but a typed refusal or the signed tree is a finding.
"""

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "unit" / "artifact")]

import contextlib  # noqa: E402
import io  # noqa: E402

from fakes.bundles import delta_job, grow  # noqa: E402
from test_golden import GOLDEN, NAMES, NEW, OLD  # noqa: E402

from updaterd.artifact import child  # noqa: E402
from updaterd.artifact.verify import verify_tree  # noqa: E402
from updaterd.errors import RejectedError  # noqa: E402

CODECS = {"full1": "full1+xz", "delta1": "delta1+xz", "bsdiff40": "bsdiff40"}


class Target:
    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp())
        self.old = grow(self.base / "old", OLD)
        self.new = grow(self.base / "new", NEW)

    def __call__(self, data: bytes) -> None:
        """Feed one input: its first byte chooses the format."""
        name = NAMES[data[0] % 3] if data else "delta1"
        middle = bool(data) and data[0] > 127 and name == "delta1"
        path = self.base / "hostile"
        path.write_bytes(data[1:])
        job = delta_job(
            self.base,
            path,
            self.old,
            self.new,
            kind="full" if name == "full1" else "delta",
            codec=CODECS[name],
            files=None if middle else self.new,
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                child.perform(job)
        except RejectedError:
            return
        finally:
            problems = verify_tree(job.destination, self.new)
            shutil.rmtree(job.destination)
        assert not problems, problems


def seeds() -> list[bytes]:
    return [
        bytes([index + high]) + (GOLDEN / name).read_bytes()
        for index, name in enumerate(NAMES)
        for high in (0, 129)
    ]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    target = Target()
    try:
        import atheris
    except ImportError:
        draw, end, count = random.Random(0), time.monotonic() + seconds, 0
        while time.monotonic() < end:
            data = bytearray(draw.choice(seeds()))
            for _ in range(draw.randrange(1, 6)):
                at = draw.randrange(len(data))
                data[at : at + draw.randrange(2)] = draw.randbytes(draw.randrange(3))
            target(bytes(data))
            count += 1
        print(f"{count} inputs, no finding")
    else:
        corpus = target.base / "corpus"
        corpus.mkdir()
        for index, seed in enumerate(seeds()):
            (corpus / str(index)).write_bytes(seed)
        atheris.instrument_all()
        atheris.Setup(
            [sys.argv[0], str(corpus), f"-max_total_time={int(seconds)}"], target
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
