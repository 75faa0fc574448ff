# SPDX-License-Identifier: Apache-2.0
"""The identity token of a CI's job, as a bearer token for the feed.

GitHub Actions gives a job with `permissions: id-token: write` an address to ask for
one; GitLab and others put it into a variable. It counts for minutes, so it is asked
for when it is needed and not before.
"""

from collections.abc import Mapping
from pathlib import PurePath
from urllib.parse import quote

from updaterd.core.identity import AUDIENCE
from updaterd.core.json_fields import parse_object
from updaterd.errors import BrokenError
from updaterd.net import Fetcher, require_secure

VARIABLE = "UPDATERD_ID_TOKEN"
_ADDRESS, _SECRET = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_LONGEST = 16 << 10


def is_offered(environ: Mapping[str, str]) -> bool:
    """Tell whether this process's environment offers an identity token."""
    return bool(
        environ.get(VARIABLE) or (environ.get(_ADDRESS) and environ.get(_SECRET))
    )


def check_offered(environ: Mapping[str, str]) -> None:
    """See that an identity token can be had.

    Raises:
        BrokenError: the environment offers none.
    """
    if is_offered(environ):
        return
    do = (
        "give the job `permissions: id-token: write`"
        if environ.get("GITHUB_ACTIONS")
        else f"give the job `id_tokens: {VARIABLE}: aud: {AUDIENCE}` (GitLab), or put "
        f"the CI's token into the variable {VARIABLE}"
    )
    raise BrokenError(
        "the environment offers no identity token for the feed",
        means="nothing was published: the feed could not be told about it",
        do=do,
        code="token",
    )


def request_identity(
    environ: Mapping[str, str], audience: str, ca_file: PurePath | None = None
) -> str:
    """Return an identity token for this audience.

    Of a variable the CI has chosen the audience already, in the job's definition.

    Args:
        environ: the process's.
        audience: for whom the token is.
        ca_file: PEM, replaces the system's CAs.

    Raises:
        TransientError: the CI does not answer.
        BrokenError: there is none, or what answers gives none.
    """
    check_offered(environ)
    if token := environ.get(VARIABLE, "").strip():
        return token
    address = require_secure(environ[_ADDRESS])
    joint = "&" if "?" in address else "?"
    headers = {"Authorization": f"bearer {environ[_SECRET]}"}
    with Fetcher(headers=headers, origin=address, ca_file=ca_file) as fetcher:
        raw = fetcher.get(
            f"{address}{joint}audience={quote(audience, safe='')}", limit=_LONGEST
        )
    answer = parse_object(raw, where="the CI's answer", limit=_LONGEST)
    return answer.text("value", longest=_LONGEST)
