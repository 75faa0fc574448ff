# SPDX-License-Identifier: Apache-2.0
"""What is wrong, as one word, one exit code and one sentence each.

    state         exit code
    current        0   nothing to do
    not_running    4   nobody listens to the feed
    pending       10   an update is under way, waits, or is held
    degraded      20   feed down, metadata expired or expiring, last attempt failed,
                       the repository asks for what this machine must not do, or
                       something stands in the way of deleting old releases
    rolled_back   30   what a product's channel offers was rolled back here

The first that applies of: not_running, rolled_back, degraded, pending, current.
"""

from updaterd.core.deferral import WAITS
from updaterd.core.lifecycle import State
from updaterd.status.sections import Document

EXIT_CODES = {
    "current": 0,
    "not_running": 4,
    "pending": 10,
    "degraded": 20,
    "rolled_back": 30,
}

_WAITING = frozenset({
    "held", "paced", "splay", "outside_window", "not_understood", "newer_schema",
    "metered", "on_battery", *WAITS,
})  # fmt: skip
_LEFT = frozenset({"blocked", "rolled_back_by_hand"})
# Nobody has looked yet, or there was nothing for this machine.
_NOTHING_YET = frozenset({
    "",
    "paused",
    "nothing_offered",
    "not_in_rollout",
    "not_for_platform",
})
_REFUSED = frozenset({
    "metadata_rollback", "below_floor", "no_way", "no_such_release"
})  # fmt: skip
_WILL_NOT_DO = frozenset({State.REJECTED, State.FAILED})
_FINE = frozenset({"current", "pending"})
_ACTING = frozenset({"install", "upgrade", "step_back", "stepping_stone"})
_NAMED = 5  # products in one line, obstacles of one product
# Days before expiry at which a person should know. A timestamp lives a week and is
# signed daily; root and targets need people to meet.
_WARN_DAYS = {"timestamp": 2.0, "root": 60.0, "targets": 60.0}
_WARN_DAYS_OTHER = 30.0


def judge(document: Document) -> Document:
    """Set `state`, `exit_code` and `problems` from the rest of the document."""
    products = document["products"]
    problems = [
        *_configuration_problems(document),
        *_feed_problems(document),
        *_trust_problems(document),
        *document["abandoned"],
        *(_about(p, p["at_odds"]) for p in products if p["at_odds"]),
        *(
            _about(p, f"cannot be deleted: {path}")
            for p in products
            for path in p["in_the_way"][:_NAMED]
        ),
        *(
            _about(product, product["last_error"]["message"])
            for product in products
            if product["failures"] and product["last_error"]
        ),
        *(
            _about(product, product["decision"]["reason"])
            for product in products
            if _is_refused(product)
        ),
    ]
    if not document["daemon"]["running"]:
        state = "not_running"
    elif any(_is_left(product) for product in products):
        state = "rolled_back"
    elif problems:
        state = "degraded"
    elif any(_is_pending(product) for product in products):
        state = "pending"
    else:
        state = "current"
    document.update(state=state, exit_code=EXIT_CODES[state], problems=problems)
    return document


def _about(product: Document, message: str) -> str:
    """Return a message with the product's name before it, once."""
    prefix = f"{product['name']}: "
    return message if message.startswith(prefix) else prefix + message


def _is_refused(product: Document) -> bool:
    """Tell whether the last answer was one that this machine must not follow."""
    code, last = product["decision"]["code"], product["last"]
    rejected = last is not None and last["state"] in _WILL_NOT_DO
    return code in _REFUSED or (code == "blocked" and rejected)


def of_block(last: str | None) -> str:
    """Return the state of a product whose offered release is blocked here.

    `update` and `status` end with its exit code.

    Args:
        last: the state in which the product's last deployment ended.
    """
    return "degraded" if last in _WILL_NOT_DO else "rolled_back"


def _is_left(product: Document) -> bool:
    """Tell whether what the channel offers ran here and was left.

    It is over when the channel offers what is installed, as after the publisher's own
    step back.
    """
    code, last = product["decision"]["code"], product["last"]
    state = last["state"] if last else None
    if code in _LEFT:
        return of_block(state) == "rolled_back"
    if state != State.ROLLED_BACK:
        return False
    target = product["target"]
    offered = target is None or target["version"] == last["version"]
    return offered or code != "current"


def _is_pending(product: Document) -> bool:
    decision, target, installed = (
        product[name] for name in ("decision", "target", "installed")
    )
    if product["deployment"] or decision["code"] in _WAITING:
        return True
    if installed is None and decision["code"] in _NOTHING_YET:
        return True
    is_installed = installed and target and installed["seq"] == target["seq"]
    return decision["code"] in _ACTING and not is_installed


def headline(document: Document) -> str:
    """Return one line: for systemd's `systemctl status` and the top of the page."""
    state: str = document["state"]
    products = document["products"]
    named = ", ".join(
        f"{product['name']} "
        + (product["installed"]["version"] if product["installed"] else "not installed")
        for product in products[:_NAMED]
    )
    if len(products) > _NAMED:
        named += f" and {len(products) - _NAMED} more"
    summary = {
        "current": "up to date",
        "not_running": "the daemon is not running",
        "pending": "an update is pending",
        "degraded": "degraded: " + "; ".join(document["problems"][:1]),
        "rolled_back": "the last update was rolled back",
    }[state]
    return f"{summary} ({named or 'no products configured'})"


def left_behind(document: Document) -> Document:
    """Return what a daemon published that does not run any more."""
    return {
        **document,
        "daemon": {"running": False},
        "feed": {**document["feed"], "connection": None},
        "state": "not_running",
        "exit_code": EXIT_CODES["not_running"],
    }


def unreadable(document: Document, why: str) -> Document:
    """Return what a daemon published, when the database itself cannot be read now."""
    degraded = "degraded" if document["state"] in _FINE else document["state"]
    return {
        **document,
        "state": degraded,
        "exit_code": EXIT_CODES[degraded],
        "problems": [why, *document["problems"]],
    }


def misread(document: Document, refused: Document) -> Document:
    """Return what a daemon published, when the configuration cannot be read now."""
    changed = {**document, "configuration": {"refused": refused}}
    old = _configuration_problems(document)
    others = (problem for problem in document["problems"] if problem not in old)
    degraded = "degraded" if document["state"] in _FINE else document["state"]
    return {
        **changed,
        "state": degraded,
        "exit_code": EXIT_CODES[degraded],
        "problems": [*_configuration_problems(changed), *others],
    }


def _configuration_problems(document: Document) -> list[str]:
    refused = (document.get("configuration") or {}).get("refused")
    if refused is None:
        return []
    goes_on = "the daemon goes on with what it read before; "
    meanwhile = goes_on if document["daemon"]["running"] else ""
    advice = f"{meanwhile}correct it, then `systemctl reload updaterd`"
    return [f"configuration refused: {refused['message']}. {advice}"]


def _feed_problems(document: Document) -> list[str]:
    connection = document["feed"]["connection"]
    if connection is None or connection["phase"] == "open":
        return []
    if connection["phase"] == "connecting" and not connection["code"]:
        return []  # the first attempt
    if connection["code"] == "closed" and connection["attempt"] <= 1:
        return []  # how a server rotates its streams; it is back in a moment
    why = connection["error"] or connection["code"] or "not connected"
    return [f"feed down: {why}"]


def _trust_problems(document: Document) -> list[str]:
    problems = []
    for role in document["trust"]["roles"]:
        name, days = role["name"], role["days_left"]
        if days <= 0:
            problems.append(
                f"metadata expired: role {name} since {role['expires_at']}; the "
                "publisher must run `updaterd release refresh`"
            )
        elif days < _WARN_DAYS.get(name, _WARN_DAYS_OTHER):
            problems.append(f"metadata expiring: role {name} in {days} days")
    problems += [warning["what"] for warning in document["trust"]["warnings"]]
    known = {warning["code"] for warning in document["trust"]["warnings"]}
    if document["trust"]["clock_suspect"] and "clock_suspect" not in known:
        problems.append(
            "clock suspect: it is behind a time that signed metadata proves; "
            "set it right"
        )
    return problems
