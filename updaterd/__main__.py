"""`python -m updaterd` and the `updaterd` command."""

import sys

from updaterd.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
