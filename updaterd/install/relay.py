# SPDX-License-Identifier: Apache-2.0
"""Copy what a command writes to updaterd and to the journal, until nobody writes.

A hook may start a service, which inherits the hook's output. Were that a pipe to the
worker, the service would die of SIGPIPE at its first line after the worker has ended,
or was killed. So a process of its own reads the pipe to its end: it hands everything to
the journal, and to the worker while there is one. It is run as a script, and needs of
Python what costs least.
"""

import os

_PIECE = 65536
_EAR, _WORKER, _JOURNAL = range(3)


def main() -> None:
    """Read standard input to its end; write it to where it is still taken."""
    outs = [_WORKER, _JOURNAL]
    while piece := os.read(_EAR, _PIECE):
        for out in tuple(outs):
            try:
                rest = piece
                while rest:
                    rest = rest[os.write(out, rest) :]
            except OSError:  # gone; SIGPIPE is ignored by Python
                outs.remove(out)


if __name__ == "__main__":
    main()
