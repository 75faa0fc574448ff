# SPDX-License-Identifier: Apache-2.0
"""One thing that would not work, and what to do about it."""

from updaterd.core.dataclass import dataclass
from updaterd.errors import UpdaterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake.

    Attributes:
        code: as in `core/codes/`.
        cause: what is wrong, with the key of its setting; "what" in JSON.
        do: what to do.
    """

    code: str
    cause: str
    do: str = ""

    def document(self) -> dict[str, str]:
        """Return it for JSON."""
        return {"code": self.code, "what": self.cause, "do": self.do}


def of_error(key: str, error: UpdaterError) -> Finding:
    """Return an error as a finding about the setting `key`."""
    message = "; ".join((error.cause, *error.details))
    return Finding(
        code=error.code, cause=f"{key}: {message}" if key else message, do=error.do
    )
