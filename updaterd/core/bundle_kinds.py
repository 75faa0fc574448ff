# SPDX-License-Identifier: Apache-2.0
"""The kinds of bundles: what each codec's name begins with, and who can read it.

Alone in its module: the bundle opener needs no more of the choice of a
route than these names.
"""

FULL = "full1"
"""A whole tree."""
DELTA = "delta1"
"""What leads from one tree to another."""
PROJECTED = "delta2"
"""A delta with images of programs, whose references are re-aimed."""
ARCHIVES = "delta3"
"""A delta between trees whose archives are inflated: only where zlib is the classic one
(`artifact.classic`), which deflates them again to the very bytes."""
ARM = "delta4"
"""As `PROJECTED`, with AArch64 programs among them."""
PRIMED = "delta5"
"""As `DELTA`; what is new in it is packed with the old files as a prefix."""
BSDIFF = "bsdiff40"
"""A patch as the `bsdiff` program writes it; it cannot describe the tree it makes,
so it only serves as the last step, where the manifest does."""

FIRST = "0.1.0"
"""Every updaterd is at least this one."""

KINDS = {
    FULL: FIRST,
    DELTA: FIRST,
    PROJECTED: FIRST,
    ARCHIVES: "0.3.0",
    ARM: "0.3.0",
    PRIMED: "0.3.0",
    BSDIFF: FIRST,
}
"""Each kind, and from which version of updaterd on it is read."""
