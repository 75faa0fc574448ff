"""Does `current` name what the journal says? `status` must not say what is not so.

Apart from `install.stage.look`, whose imports the daemon does without.
"""

import errno
import os
from pathlib import PurePath


def contradiction(root: PurePath, version: str) -> str | None:
    """Return how the disk contradicts that `version` is installed, if it does.

    Whoever may not look there is told nothing.
    """
    current = os.fspath(root / "current")
    try:
        named = os.path.basename(os.readlink(current))
        os.stat(current)
    except FileNotFoundError:
        said = "leads nowhere"
    except OSError as error:
        if error.errno != errno.EINVAL:
            return None
        said = "is not a link any more"
    else:
        if named == version:
            return None
        said = f"names {named}"
    return f"{version} was installed, but {current} {said}"
