# SPDX-License-Identifier: Apache-2.0
"""Webhooks: a message to others for each line of the audit log.

    [[webhooks]]
    url = "https://ops.example.com/hook"   # or url_file: an address can be a secret
    secret_file = "hook.secret"            # signs each message
    form = "standard"                      # or "slack": text alone

Files are relative to the workspace.
Signed as Standard Webhooks (standardwebhooks.com) have it: HMAC-SHA256 over id, time
and body. The id of a line's message is always the same, so that what comes twice can
be told. `text` is in both forms: Slack and its like show it. What a receiver refuses is
sent again by later rounds, a hundred lines at most; older ones are passed over.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from updaterd.core.text import printable
from updaterd.errors import BrokenError, TransientError, UpdaterError
from updaterd.net import Fetcher, require_secure

KEPT = 100
"""Lines that a receiver can be behind; a longer outage costs it the oldest."""
AT_ONCE = 20
"""Lines in one round: what else there is to do must not wait for a slow receiver."""
ROUND_S = 15.0
"""Seconds of one round for a receiver, however many lines: a halt must not wait."""
MOST = 8
FORMS = ("standard", "slack")
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A receiver.

    Attributes:
        name: what it is called in messages and in `watch.json`: no secret.
        url: its address, which may be a secret.
        secret: signs what it gets; b"": nothing is signed.
        form: one of `FORMS`.
    """

    name: str
    url: str
    secret: bytes
    form: str


def configured(folder: Path, table: object) -> tuple[Webhook, ...]:
    """Return the receivers of `release.toml`.

    Raises:
        BrokenError: one cannot be used.
        _wrong: that error.
    """
    if not isinstance(table, list) or len(table) > MOST:
        raise _wrong(0, f"`webhooks` is a list of at most {MOST} tables")
    return tuple(_read(folder, number, item) for number, item in enumerate(table, 1))


def _read(folder: Path, number: int, item: Any) -> Webhook:
    """Return one receiver.

    Raises:
        BrokenError: it cannot be used.
        _wrong: that error.
    """
    if not isinstance(item, dict):
        raise _wrong(number, "it is not a table")
    unknown = set(item) - {"url", "url_file", "secret_file", "form"}
    form = item.get("form", FORMS[0])
    if unknown or form not in FORMS:
        raise _wrong(number, "it has url or url_file, secret_file, and form")
    try:
        url = item.get("url") or (folder / item["url_file"]).read_text("ascii").strip()
        secret = b""
        if "secret_file" in item:
            text = (folder / item["secret_file"]).read_text("ascii").strip()
            secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        host = urlsplit(url).hostname or ""
        require_secure(url)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise _wrong(number, f"its address or secret cannot be read ({why})") from None
    except UpdaterError:
        raise _wrong(number, "its address is not https") from None
    if "secret_file" in item and len(secret) < 16:
        raise _wrong(number, "its secret is shorter than 16 bytes")
    tag = hashlib.sha256(url.encode()).hexdigest()[:8]
    return Webhook(name=f"{host}-{tag}", url=url, secret=secret, form=form)


def _wrong(number: int, fault: str) -> BrokenError:
    return BrokenError(
        f"webhooks[{number}] of release.toml cannot be used: {fault}",
        means="no webhook is told of anything; rollouts are watched all the same",
        do="correct release.toml",
        code="webhook",
    )


def text_of(line: Mapping[str, Any]) -> str:
    """Return a line of the audit log in a sentence."""
    why = f": {line['why']}" if line["why"] else ""
    subject = f"{line['product']}/{line['channel']} {line['version']}"
    return printable(f"{line['act']} {subject} (by {line['who']}){why}", longest=1000)


def body_of(line: Mapping[str, Any], form: str) -> bytes:
    """Return the message about a line."""
    if form == "slack":
        return json.dumps({"text": text_of(line)}).encode()
    return json.dumps({
        "type": f"channel.{line['act']}",
        "timestamp": line["at"],
        "data": dict(line),
        "text": text_of(line),
    }).encode()


def headers_of(
    webhook: Webhook, ident: str, body: bytes, *, now: int
) -> dict[str, str]:
    """Return the headers of a message, with its signature where there is a secret."""
    headers = {"webhook-id": ident, "webhook-timestamp": str(now)}
    if webhook.secret:
        signed = f"{ident}.{now}.".encode() + body
        digest = hmac.digest(webhook.secret, signed, hashlib.sha256)
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def send(  # noqa: PLR0913 - to whom, what, and when
    fetcher: Fetcher,
    webhook: Webhook,
    lines: Sequence[Mapping[str, Any]],
    *,
    after: int,
    now: int,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, str]:
    """Send what a receiver has not got yet.

    Args:
        fetcher: asks the network.
        webhook: the receiver.
        lines: of the audit log, all of them.
        after: how many it has got, or passed over.
        now: Unix seconds, for the signature.
        clock: seconds, never going back.

    Returns:
        How many it has now, and what is wrong: "", or words without a secret.
    """
    done = max(after, len(lines) - KEPT)
    until = clock() + ROUND_S
    for line in lines[done : done + AT_ONCE]:
        if (rest_s := until - clock()) <= 0:
            return done, f"{webhook.name} is slow; the rest is sent by the next look"
        ident = f"audit-{line['pointer'][:16]}-{line['n']}"
        body = body_of(line, webhook.form)
        headers = headers_of(webhook, ident, body, now=now)
        try:
            status, _, _ = fetcher.exchange(
                webhook.url, body, headers=headers, within_s=rest_s
            )
        except TransientError as error:
            return done, f"{webhook.name} cannot be reached ({error.code})"
        except UpdaterError as error:
            return done, f"{webhook.name} does not answer as it should ({error.code})"
        if status == 410:  # Standard Webhooks: gone, and wants no more
            return len(lines), f"{webhook.name} wants no more messages (410)"
        if not 200 <= status < 300:
            return done, f"{webhook.name} answered {status}"
        done = line["n"]
    return done, ""
