# SPDX-License-Identifier: Apache-2.0
"""Which identity tokens of a CI (OpenID Connect) a grant takes: its rules, and time.

A grant names an issuer, an audience and a subject. All are compared as they are
written; only a subject may end in `*`, which stands for one or more characters of its
last part: it takes no colon, so that no part of another kind can follow, and never
`pull_request`, which anybody may open.
"""

import math
import re
from collections.abc import Mapping

from updaterd.core.dataclass import dataclass
from updaterd.errors import RejectedError, TransientError

AUDIENCE = "updaterd"
"""The audience of a grant that names none, and of a publisher that is told none."""

LEEWAY_S = 60.0
"""How far the clocks of issuer and server may be apart."""

LONGEST_S = 86400.0
"""A token that lives longer is none of a job: it is refused."""

_MOST = 1024
_PART = re.compile(r",(?=(?:issuer|subject|audience|claim\.[A-Za-z0-9_]+)=)")
_ANYBODY = "pull_request"


class BadRuleError(RejectedError):
    """No rule, or one that would take what nobody means.

    Args:
        why: it is none.
    """

    code = "bad_grant"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the grant cannot be used: {why}",
            do="write issuer=URL,subject=TEXT, such as issuer=https://"
            "token.actions.githubusercontent.com,"
            "subject=repo:OWNER/NAME:ref:refs/tags/v*",
        )


class RefusedIdentityError(RejectedError):
    """An identity token that does not count; the text says why to who sent it."""

    code = "identity_refused"


class IssuerDownError(TransientError):
    """The issuer's keys cannot be had now."""

    code = "issuer_unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Whose identity tokens are taken.

    Attributes:
        issuer: as it stands in `iss`.
        subject: as it stands in `sub`, or its beginning and `*`.
        audience: as it stands in `aud`.
        claims: further claims and the text that each must be.
    """

    issuer: str
    subject: str
    audience: str = AUDIENCE
    claims: Mapping[str, str]

    def __str__(self) -> str:
        """Return it as `read_rule` reads it."""
        parts = {"issuer": self.issuer, "subject": self.subject}
        parts["audience"] = self.audience
        parts |= {f"claim.{name}": value for name, value in self.claims.items()}
        return ",".join(f"{name}={value}" for name, value in parts.items())

    def fault(self, claims: Mapping[str, object]) -> str:
        """Return why this rule does not take a token with these claims, or ""."""
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.audience not in audiences:
            return f"its audience is {_shown(audience)}, not {self.audience!r}"
        subject = claims.get("sub")
        if not isinstance(subject, str) or not matches(self.subject, subject):
            return f"its subject is {_shown(subject)}, not {self.subject!r}"
        for name, expected in self.claims.items():
            if _as_text(claims.get(name)) != expected:
                return f"its {name} is {_shown(claims.get(name))}, not {expected!r}"
        return ""


def matches(pattern: str, subject: str) -> bool:
    """Tell whether a subject is the one that a pattern names."""
    if not pattern.endswith("*"):
        return subject == pattern
    beginning = pattern[:-1]
    rest = subject[len(beginning) :]
    return (
        subject.startswith(beginning)
        and bool(rest)
        and ":" not in rest
        and subject.rpartition(":")[2] != _ANYBODY
    )


def read_rule(text: str) -> Rule:
    """Return the rule in `issuer=URL,subject=PATTERN[,audience=A][,claim.NAME=TEXT]`.

    Raises:
        BadRuleError: it is none, or one that would take what nobody means.
    """
    parts: dict[str, str] = {}
    for part in _PART.split(text):
        name, equals, value = part.partition("=")
        is_known = name in {"issuer", "subject", "audience"} or name[:6] == "claim."
        if not equals or not is_known or name in parts or not _is_plain(value):
            raise BadRuleError(f"{part!r:.80} does not belong in it")
        parts[name] = value
    if "issuer" not in parts or "subject" not in parts:
        raise BadRuleError("issuer or subject is missing")
    if fault := _subject_fault(parts["subject"]):
        raise BadRuleError(fault)
    claims = {name[6:]: value for name, value in parts.items() if name[:6] == "claim."}
    return Rule(
        issuer=parts["issuer"],
        subject=parts["subject"],
        audience=parts.get("audience", AUDIENCE),
        claims=claims,
    )


def _is_plain(value: str) -> bool:
    return 0 < len(value) <= _MOST and value.isascii() and value.isprintable()


def _subject_fault(subject: str) -> str:
    """Return why a subject is no pattern to be trusted; "" when it is."""
    beginning, star, rest = subject.partition("*")
    if rest:
        return "in a subject, * can only be the end"
    if star and ":" not in beginning:
        return "before the * of a subject, what it is about must be written out"
    # GitHub's repo:OWNER/NAME:* is a widespread mistake: it takes pull requests
    if star and re.fullmatch(r"repo:[^:]*:?", beginning):
        return "its * would take any branch, tag and pull request of a repository"
    return ""


def time_fault(claims: Mapping[str, object], now: float) -> str:
    """Return why a token does not count at this time; "" when it does.

    Args:
        claims: `exp` and `iat` are needed, `nbf` may be there.
        now: seconds since 1970.
    """
    expires, issued = _seconds(claims.get("exp")), _seconds(claims.get("iat"))
    if expires is None or issued is None:
        return "it does not say from when until when it counts (iat, exp)"
    begins = _seconds(claims.get("nbf")) if "nbf" in claims else issued
    if begins is None:
        return "its nbf is no time"
    if expires <= now - LEEWAY_S:
        return f"it expired {now - expires:.0f} s ago"
    if max(begins, issued) > now + LEEWAY_S:
        return (
            f"it counts only in {max(begins, issued) - now:.0f} s: compare the clocks"
        )
    if expires - issued > LONGEST_S:
        return f"it lives longer than {LONGEST_S:.0f} s"
    return ""


def _seconds(value: object) -> float | None:
    """Return a NumericDate (RFC 7519); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 2**53 and math.isfinite(value) else None


def _as_text(value: object) -> str | None:
    """Return a claim as a rule has it: GitHub writes numbers and flags as texts."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) else None


def _shown(value: object) -> str:
    return "missing" if value is None else f"{value!r:.200}"
