# SPDX-License-Identifier: Apache-2.0
"""Choose which updaterd an interpreter of /usr/lib/updaterd runs.

Imported by updaterd.pth at every start of /usr/lib/updaterd/bin/python, so that
`python -I -m updaterd`, its workers and their children agree.

The packaged release is the default. A self-updated one is used only by the user that
owns all of it, the product's root included, who could run it anyway: root, or an
administrator who types `updaterd status`, never executes what the daemon's user can
write, wherever that user lets `current` point. Each daemon has its own:
`updaterd` below /opt/updaterd, the instance `updaterd@NAME` below /opt/updaterd-NAME.
"""

import os
import pwd
import stat
import sys

PACKAGED = "/usr/lib/updaterd/site"
EXTRA = "/usr/lib/updaterd/site-feed"  # the package updaterd-feed
PLACES = "/opt"


def daemon():
    """Return whose process this is: `updaterd`, or `updaterd-NAME` by its user."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "updaterd"
    return name if name.startswith("updaterd-") else "updaterd"


def choose(own=None, packaged=PACKAGED):
    """Return the folder to import from."""
    if os.environ.get("UPDATERD_PACKAGED"):  # /usr/bin/updaterd: it only reads
        return packaged
    own = os.path.realpath(own or os.path.join(PLACES, daemon()))
    try:
        folder, version = os.path.split(os.readlink(os.path.join(own, "current")))
        releases = os.path.join(own, "releases")
        release = os.path.join(releases, version)
        inside = os.path.join(own, folder) == releases and version[:1] not in ("", ".")
        if (
            inside
            and is_theirs(os.path.dirname(own), {0, os.geteuid()})
            and all(
                is_theirs(f, {os.geteuid()} - {0}) for f in (own, releases, release)
            )
            and os.path.isfile(os.path.join(release, "updaterd", "__main__.py"))
        ):
            return release
    except OSError:
        pass
    return packaged


def is_theirs(folder, owners):
    """Tell whether a folder, no link, is one of these users', and theirs to write."""
    status = os.lstat(folder)
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid in owners
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def install():
    """Put the chosen release on the path; keep its bytecode out of its tree."""
    chosen = choose()
    if chosen != PACKAGED:
        # The tree is signed and closed: nothing may appear in it.
        cache = os.environ.get("CACHE_DIRECTORY", f"/var/cache/{daemon()}")
        cache = cache.split(":")[0]
        sys.pycache_prefix = os.path.join(cache, "pycache")
    sys.path.append(chosen)
    if os.path.isdir(EXTRA):
        sys.path.append(EXTRA)
    return chosen


CHOSEN = install()
