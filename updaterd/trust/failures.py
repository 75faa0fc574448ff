# SPDX-License-Identifier: Apache-2.0
"""Every way python-tuf can fail, as one of our errors with a stable code.

All of them are transient but two: a repository that is wrong today may be right
tomorrow, and what is installed is never touched by a failed refresh. The two are a
bootstrap root that cannot be used and a disk that cannot be written.
"""

import errno

from tuf.api import exceptions
from tuf.api.serialization import DeserializationError

from updaterd.core import layout
from updaterd.errors import BrokenError, TransientError, UpdaterError

KEPT = "nothing was accepted; what is installed keeps running"


def explain(error: Exception, *, name: str) -> UpdaterError:
    """Return what `error` means for this machine.

    Args:
        error: raised by python-tuf, or by the disk under it.
        name: the metadata file that was being looked at.
    """
    if isinstance(error, UpdaterError):
        return error
    if isinstance(error, exceptions.DownloadError):
        return _download(error, name)
    if isinstance(error, OSError):
        return _disk(error)
    return _repository(error, name)


def _repository(  # noqa: PLR0911 # a table, one return a row
    error: Exception, name: str
) -> TransientError:
    role = layout.stem(name)
    if isinstance(error, exceptions.ExpiredMetadataError):
        return TransientError(
            f"the signed metadata has expired: {error}",
            means="new releases are not accepted until it is signed again; what is "
            "installed keeps running",
            do="check this machine's clock; if it is right, whoever publishes must "
            "run `updaterd release refresh`",
            code="metadata_expired",
        )
    if isinstance(error, exceptions.UnsignedMetadataError):
        return TransientError(
            f"{name} is not signed by enough trusted keys: {error}",
            means=KEPT,
            do="compare `trust.root` with that repository's 1.root.json; if they are "
            "the same, someone may be tampering, or keys were changed without a new "
            "root: tell whoever publishes",
            code="metadata_forged",
        )
    if isinstance(error, exceptions.BadVersionNumberError):
        if role == "timestamp":
            return stale_mirror(str(error))
        code = "metadata_rollback" if "snapshot" in role else "metadata_mixed"
        return TransientError(
            f"{name} has the wrong version: {error}",
            means=KEPT,
            do="a mirror or cache is stale, or someone replays old files: tell "
            "whoever publishes if it lasts",
            code="metadata_forged" if role.endswith("root") else code,
        )
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        return TransientError(
            f"{name} is not the file that was signed: {error}",
            means=KEPT,
            do="a mirror or cache is stale or damaged; updaterd tries again",
            code="metadata_mixed",
        )
    if isinstance(error, DeserializationError):
        return TransientError(
            f"{name} cannot be read as metadata",
            means=KEPT,
            do="a mirror or proxy may answer with something else; updaterd tries again",
            code="metadata_malformed",
        )
    # what is left are inconsistencies between files: a role dropped from the
    # snapshot, a type that is not the name's, values no rule allows
    return TransientError(
        f"{name} cannot be used: {error}",
        means=KEPT,
        do="tell whoever publishes if it lasts",
        code="metadata_malformed",
    )


def stale_mirror(detail: str) -> TransientError:
    """Return the error for a timestamp older than one already accepted."""
    return TransientError(
        f"the repository serves an older timestamp than before: {detail}",
        means="a stale mirror or a replay; the newer one is kept",
        do="updaterd tries again by itself; if it lasts, refresh the mirror",
        code="stale_mirror",
    )


def _download(error: exceptions.DownloadError, name: str) -> UpdaterError:
    cause = error.__cause__
    if isinstance(cause, UpdaterError):
        return cause
    if isinstance(error, exceptions.DownloadHTTPError):
        return TransientError(
            f"the repository has no {name}",
            means="the repository is incomplete, or the address is wrong; " + KEPT,
            do="check `[trust] repository`; updaterd tries again by itself",
            code="metadata_missing",
        )
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return TransientError(
            f"{name} is larger than it may be", means=KEPT, code="endless_data"
        )
    return TransientError(f"cannot fetch {name}: {error}", code="unreachable")


def _disk(error: OSError) -> UpdaterError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE}:
        return TransientError(
            f"cannot write the trust cache: {error}",
            means=KEPT,
            do="free disk space",
            code="cache_full",
        )
    return BrokenError(
        f"cannot use the trust cache: {error}",
        means=KEPT,
        do="let the daemon's user own the state directory; `trust/` in it may be "
        "deleted, it is fetched anew",
        code="cache_unusable",
    )
