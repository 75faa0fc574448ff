# SPDX-License-Identifier: Apache-2.0
"""Scopes, and who holds them: who may publish, operate, read or report.

A grant has no secret at all: it names whose identity tokens count (`core/identity`,
`identities`).
"""

from dataclasses import dataclass

from updaterd.core.identity import BadRuleError, Rule, read_rule
from updaterd.core.json_fields import Fields
from updaterd.core.names import check_name
from updaterd.errors import MalformedError, RejectedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whoever may do something here.

    Attributes:
        id: short public name, for `revoke` and logs.
        name: what its owner calls it.
        scopes: `publish:PRODUCT/CHANNEL` (either may be `*`), `operate`, `read`.
        created: seconds since 1970.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created: int

    def may_publish(self, product: str | None, channel: str | None) -> bool:
        """Tell whether a scope covers the topic; None asks for any topic at all.

        Metadata belongs to every product, so any publishing scope will do for it.
        """
        for scope in self.scopes:
            kind, _, rest = scope.partition(":")
            if kind != "publish":
                continue
            its_product, _, its_channel = rest.partition("/")
            if product is None or (
                its_product in {"*", product} and its_channel in {"*", channel}
            ):
                return True
        return False

    def may(self, scope: str) -> bool:
        """Tell whether `operate`, `read` or `fleet:read` was granted."""
        return scope in self.scopes

    def may_report(self, product: str) -> bool:
        """Tell whether a scope lets its bearer report about a product."""
        return not {f"report:{product}", "report:*"}.isdisjoint(self.scopes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Holder):
    """A token without its secret.

    Attributes:
        sha256: hash of the secret.
    """

    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(Holder):
    """What whoever shows a certain identity may do.

    Attributes:
        rule: whose identity tokens count.
    """

    rule: Rule


def check_scope(scope: str) -> str:
    """Return the scope when it can be granted.

    Raises:
        RejectedError: it says nothing this server knows.
    """
    kind, colon, rest = scope.partition(":")
    if scope in {"operate", "read", "fleet:read"}:
        return scope
    if kind == "report" and colon and (rest == "*" or is_name(rest)):
        return scope
    product, slash, channel = rest.partition("/")
    if (
        kind == "publish"
        and colon + slash == ":/"
        and all(name == "*" or is_name(name) for name in (product, channel))
    ):
        return scope
    raise RejectedError(
        f"{scope!r:.80} is not a scope",
        do="use publish:PRODUCT/CHANNEL (either may be *), report:PRODUCT (or *), "
        "fleet:read, operate or read",
        code="bad_scope",
    )


def check_scopes(scopes: tuple[str, ...]) -> None:
    """See that all of them can be granted.

    Raises:
        RejectedError: one says nothing that this server knows.
    """
    for scope in scopes:
        check_scope(scope)


def check_machine_scopes(scopes: tuple[str, ...]) -> None:
    """See that machines may have all of them.

    Raises:
        RejectedError: one is for people, or is none at all.
    """
    check_scopes(scopes)
    for scope in scopes:
        if scope != "read" and not scope.startswith("report:"):
            raise RejectedError(
                f"no code can give {scope!r:.80}",
                means="codes are for machines, which read the feed and report",
                do="use read and report:PRODUCT; make a token for anything else",
                code="bad_scope",
            )


def is_name(text: str) -> bool:
    """Tell whether the text can name a product or channel."""
    try:
        check_name("name", text)
    except MalformedError:
        return False
    return True


def read_token(fields: Fields) -> Token:
    """Read a token."""
    return Token(
        id=fields.text("id"),
        name=fields.text("name"),
        sha256=fields.hexdigest("sha256"),
        scopes=tuple(fields.text("scopes", longest=4096).split()),
        created=fields.integer("created"),
    )


def read_grant(fields: Fields) -> Grant:
    """Read a grant.

    Raises:
        MalformedError: it is none, or its rule is none.
    """
    try:
        rule = read_rule(fields.text("oidc", longest=8192))
    except BadRuleError as error:
        raise MalformedError(f"{fields.where}: {error}") from error
    return Grant(
        id=fields.text("id"),
        name=fields.text("name"),
        rule=rule,
        scopes=tuple(fields.text("scopes", longest=4096).split()),
        created=fields.integer("created"),
    )
