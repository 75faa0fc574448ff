#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line that TUF's conformance suite drives, over `make_client`.

tuf_client.py --metadata-dir DIR init ROOT
tuf_client.py --metadata-dir DIR --metadata-url URL refresh
tuf_client.py --metadata-dir DIR --metadata-url URL --target-name NAME
              --target-base-url URL --target-dir DIR download
"""

import argparse
import sys
from pathlib import Path

from updaterd.errors import UpdaterError
from updaterd.trust.conformance import make_client


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name")
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    options = parser.parse_args()
    bootstrap = options.metadata_dir / "bootstrap"
    if options.command == "init":
        data = options.root.read_bytes()
        bootstrap.write_bytes(data)
        (options.metadata_dir / "root.json").write_bytes(data)
        return 0
    client = make_client(
        options.metadata_dir,
        options.metadata_url,
        options.target_base_url,
        options.target_dir,
        bootstrap.read_bytes(),
    )
    try:
        if options.command == "refresh":
            client.refresh()
        else:
            client.download(options.target_name)
    except UpdaterError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
