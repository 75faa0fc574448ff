# SPDX-License-Identifier: Apache-2.0
"""`python -m updaterd` and the `updaterd` command."""

import os
import sys

from updaterd import cli

__all__ = ["main"]

UMASK = 0o022
"""Of every process of ours: what libraries and hooks make does not depend on who types
a command. What we make ourselves has its mode by name."""


def main() -> int:
    """Run the command that was typed; return its exit code."""
    os.umask(UMASK)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
