#!/usr/lib/updaterd/bin/python -I
"""Does this release of updaterd work on this machine? Exit code 0: yes.

The health command of the product `updaterd`: run after the switch and before the
daemon is restarted. Loads everything the daemon, a worker and the worker's child
need, with this machine's Python and libraries, and reads the configuration.
"""

import importlib
import os
import subprocess
import sys

sys.dont_write_bytecode = True  # nothing may appear in a signed, closed tree
# The release on trial, where a hook says which; else what `current` names.
release = os.environ.get("UPDATERD_RELEASE")
if release:
    sys.path.insert(0, release)

import updaterd

for name in (
    "artifact.child",
    "artifact.codecs",
    "daemon.service",
    "pipeline.order",
    "trust.client",
):
    importlib.import_module(f"updaterd.{name}")
from updaterd import net

net.tls_context(None)
if release and os.path.commonpath([release, updaterd.__file__]) != release:
    sys.exit(f"self-test: {updaterd.__file__} is not in {release}")
code = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.argv[0] = 'updaterd'; "
    "from updaterd.cli import main; sys.exit(main())"
)
site = os.path.dirname(os.path.dirname(updaterd.__file__))
checked = subprocess.run(
    [sys.executable, "-IB", "-c", code, site, "config", "check"],
    check=False,
    stdout=subprocess.DEVNULL,
)
print(f"self-test: updaterd {updaterd.__version__} works here")
sys.exit(checked.returncode)
