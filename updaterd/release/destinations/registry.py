# SPDX-License-Identifier: Apache-2.0
"""Which kind of destination an address names, and what opens it."""

import re
from pathlib import Path

from updaterd.errors import BrokenError
from updaterd.release.destinations.contract import PATIENCE_S, Destination

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
CLOUD = ("s3", "gs", "az")


def open_destination(
    address: str, *, base: Path, patience_s: float = PATIENCE_S
) -> Destination:
    """Return the destination at an address; nothing is asked of it yet.

    Args:
        address: `s3://BUCKET/PREFIX`, `gs://`, `az://`, or a directory.
        base: what a relative directory is relative to.
        patience_s: how long its requests are tried again.

    Raises:
        BrokenError: it carries a secret, or needs a library that is not here.
        _no_address: it is no such address.
    """
    match = _SCHEME.fullmatch(address)
    if match is None or match[1] == "file":
        from updaterd.release.destinations.folder import (  # noqa: PLC0415 # as asked
            Folder,
        )

        path = Path(match[2] if match else address)
        if not str(path) or not address:
            raise _no_address(address)
        return Folder(base / path.expanduser())
    scheme, rest = match.groups()
    if scheme not in CLOUD:
        raise _no_address(address)
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        raise BrokenError(
            f"the destination {scheme}://... carries more than a bucket and a prefix",
            means="an address is printed and logged: no secret may stand in it",
            do="give credentials by the environment: docs/publisher.md",
            code="bad_destination",
        )
    try:
        from updaterd.release.destinations.bucket import (  # noqa: PLC0415 # as asked
            Bucket,
        )
    except ImportError as error:
        raise BrokenError(
            f"{address} needs the library obstore, which is not installed",
            means="nothing was published",
            do='pip install "updaterd[cloud]"',
            code="no_cloud",
        ) from error
    return Bucket(address, patience_s=patience_s)


def _no_address(address: str) -> BrokenError:
    return BrokenError(
        f"{address!r:.200} is not a destination",
        means="nothing was published",
        do="name a directory, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
        "az://CONTAINER/PREFIX",
        code="bad_destination",
    )
