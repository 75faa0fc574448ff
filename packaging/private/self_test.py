#!/usr/lib/updaterd/bin/python -I
# SPDX-License-Identifier: Apache-2.0
"""Ask a release of updaterd whether it works on this machine. Exit code 0: yes.

The self-test of the product `updaterd` before the switch, and its health command
after it. Runs the release's own `updaterd self-test` with this machine's Python: the
one that UPDATERD_RELEASE names, else the one that `current` leads to. Root never runs
what another user may write: typed by root, it is done by that user.
"""

import os
import pwd
import sys

sys.dont_write_bytecode = True  # nothing may appear in a signed, closed tree
release = os.environ.get("UPDATERD_RELEASE")
if os.geteuid() == 0:
    import _updaterd_user

    places = [release] if release else []
    owner = _updaterd_user.owner_of(*places, "/opt/updaterd", "/var/lib/updaterd")
    if owner is not None:
        argv = [sys.executable, "-I", os.path.realpath(__file__)]
        sys.exit(_updaterd_user.run(owner, argv, keep=["UPDATERD_RELEASE"]))
if release:
    sys.path.insert(0, release)

import updaterd

if release and os.path.commonpath([release, updaterd.__file__]) != release:
    sys.exit(f"self-test: {updaterd.__file__} is not in {release}")

from updaterd.cli import main

# Run as a hook it has no environment of the unit's: an instance is known by its user.
name = pwd.getpwuid(os.geteuid()).pw_name
instance = ["--config", f"/etc/{name}/updaterd.toml"] if name[:9] == "updaterd-" else []
sys.argv[0] = "updaterd"
sys.exit(main(["self-test", *instance]))
