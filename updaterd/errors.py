# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, by what the daemon does about it.

    UpdaterError
    |-- TransientError   the network, a stale mirror, a full disk: retry with backoff
    |-- RejectedError    this release will never do: refuse it, go on with the next
    `-- BrokenError      this machine needs a person: say what to do, stay up

Every error says what happened, what it means and what to do next, and carries a
stable `code` that scripts can match (`updaterd status --json` prints it).
"""


class UpdaterError(Exception):
    """Root of the tree.

    Args:
        cause: what happened, one line, with the path or address it happened to.
        means: what that means for the owner of the machine.
        do: what to do next.
        code: stable name of the failure, snake_case; the class has a default.
    """

    code = "error"
    details: tuple[str, ...] = ()
    """What happened, item by item, where one line does not hold it."""

    def __init__(
        self, cause: str, *, means: str = "", do: str = "", code: str = ""
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.means = means
        self.do = do
        if code:
            self.code = code

    def __str__(self) -> str:
        """Return the parts as sentences of one line."""
        parts = (self.cause, *self.details, self.means, self.do)
        return ". ".join(part.rstrip(".") for part in parts if part)


class TransientError(UpdaterError):
    """It may work later: the caller retries with backoff."""

    code = "transient"


class RejectedError(UpdaterError):
    """This release will never do; the next one may."""

    code = "rejected"


class BrokenError(UpdaterError):
    """This machine needs a person. The daemon stays up and says so."""

    code = "broken"


class MalformedError(RejectedError):
    """Bytes that are not what their format says: event, manifest, bundle, pointer."""

    code = "malformed"


class NotUnderstoodError(MalformedError):
    """Made for a newer updaterd: passed over, without a verdict on it."""

    code = "not_understood"


class NotStagedError(RejectedError):
    """Asked to activate a release that is not on disk."""

    code = "not_staged"
