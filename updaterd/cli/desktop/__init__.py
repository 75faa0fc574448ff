# SPDX-License-Identifier: Apache-2.0
"""Commands for the person and the applications at a machine."""

import argparse
from pathlib import Path


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Declare where to ask."""
    parser.add_argument(
        "--socket",
        type=Path,
        metavar="PATH",
        help="where updaterd answers applications",
    )
