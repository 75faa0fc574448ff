# SPDX-License-Identifier: Apache-2.0
"""Secrets that systemd hands to a unit (systemd.exec(5), `LoadCredential=`).

Files in `$CREDENTIALS_DIRECTORY`, a directory of the unit's own that no other user can
read: their mode is systemd's business, so it is not judged here.
"""

from collections.abc import Mapping
from pathlib import Path

from updaterd.errors import BrokenError


def credential(environ: Mapping[str, str], *names: str) -> bytes | None:
    """Return the first line of the first of these credentials that was handed over.

    Args:
        environ: the process's; `CREDENTIALS_DIRECTORY` is what counts in it.
        names: of credentials, the most special one first.

    Raises:
        BrokenError: it is there, and empty or unreadable.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    for name in names:
        path = Path(folder, name)
        try:
            line = path.read_bytes().split(b"\n", 1)[0].strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BrokenError(
                f"cannot read the credential {path}: {error.strerror}",
                do="look at LoadCredential= of this unit",
                code="credential",
            ) from error
        if not line:
            raise BrokenError(
                f"the credential {path} is empty",
                do=f"write the secret into the file that LoadCredential={name} names",
                code="credential",
            )
        return line
    return None
