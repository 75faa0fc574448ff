# SPDX-License-Identifier: Apache-2.0
"""One syncfs against an fsync of each file and directory, for a staged tree."""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from updaterd import durable


def make(root: Path, files: int, size: int) -> None:
    for number in range(files):
        folder = root / str(number % 50)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(os.urandom(size))


def sync_each(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=4096, help="bytes a file")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None)
    arguments = parser.parse_args()
    for name, act in (("syncfs", durable.sync_fs), ("fsync each", sync_each)):
        took = []
        for _ in range(arguments.runs):
            root = Path(tempfile.mkdtemp(dir=arguments.dir))
            make(root, arguments.files, arguments.size)
            began = time.perf_counter()
            act(root)
            took.append(time.perf_counter() - began)
            shutil.rmtree(root)
        print(f"{name}: median {statistics.median(took):.3f} s of {took}")


if __name__ == "__main__":
    main()
