# SPDX-License-Identifier: Apache-2.0
"""How things stand, as a page for a person."""

from typing import Any

from updaterd.cli.parts.options import SLOW_LOOPS, has_compiled_loops


def render(
    document: dict[str, Any], now: float, *, start: str = "systemctl start updaterd"
) -> str:
    """Return the document as a page for a person."""
    from updaterd import status
    from updaterd.core.text import printable

    lines = [f"updaterd {document['updaterd']}: {status.headline(document)}", ""]
    if _is_old(document["generated_at"], now):
        age = _ago(document["generated_at"], now)
        lines.append(f"  as of     {age}, when the daemon last published this")
    lines.append(f"  feed      {_feed(document, now, start)}")
    lines.append(f"            {document['feed']['url']}")
    waiting, bad = document["feed"].get("pending"), document["feed"].get("quarantined")
    if waiting or bad:
        lines.append(
            f"            events: {waiting or 0} waiting, {bad or 0} malformed"
        )
    lines.append(f"  trust     {_trust(document)}")
    if reports := _reports(document, now):
        lines.append(f"  reports   {reports}")
    cage = document.get("cage")
    if cage:
        lines.append(f"  cage      {cage['layers']}")
        lines += [f"            warning: {warning}" for warning in cage["missing"]]
    if not has_compiled_loops():
        lines.append(f"  deltas    warning: {SLOW_LOOPS}")
    for product in document["products"]:
        lines += ["", *_product(product, now)]
    if document.get("notice"):
        lines += ["", f"  notice    {document['notice']}"]
    if document["problems"]:
        lines += ["", "what is wrong:", *(f"  - {p}" for p in document["problems"])]
    return "\n".join(printable(line) for line in lines)


def _is_old(moment: str, now: float) -> bool:
    """Tell whether a page shows the past: one that was published, not made now."""
    from datetime import datetime

    return now - datetime.fromisoformat(moment).timestamp() >= 2.0


def _ago(moment: str | None, now: float) -> str:
    from datetime import datetime

    from updaterd.core.units import format_duration

    if moment is None:
        return "never"
    seconds = now - datetime.fromisoformat(moment).timestamp()
    if seconds < 0:
        return f"in {format_duration(seconds)}"
    return f"{format_duration(seconds)} ago" if seconds >= 1 else "just now"


def local(moment: str) -> str:
    """Return an ISO 8601 moment as this machine's clocks show it, with the zone.

    `--json` stays UTC: a person compares with a watch, a script with other machines.
    """
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except (ValueError, OverflowError, OSError):
        return moment  # no such moment in any calendar: as it is


def _feed(document: dict[str, Any], now: float, start: str) -> str:
    if not document["daemon"]["running"]:
        return f"the daemon is not running; start it with `{start}`"
    connection = document["feed"]["connection"]
    cursor = document["feed"].get("cursor")
    last = f", last event {cursor}" if cursor else ""
    if connection is None:
        return f"starting{last}"
    if connection["phase"] == "open":
        return f"connected since {_ago(connection['since'], now)}{last}"
    again = connection.get("retry_at")
    when = f", next attempt {_ago(again, now)}" if again else ""
    why = connection["error"] or connection["code"]
    return f"{connection['phase']}{': ' + why if why else ''}{when}{last}"


def _trust(document: dict[str, Any]) -> str:
    roles = document["trust"]["roles"]
    if not roles:
        return "no signed metadata yet"
    first = roles[0]
    name, days = f"{first['name']} (version {first['version']})", first["days_left"]
    if days <= 0:
        return f"{len(roles)} roles, {name} expired {-days:g} days ago"
    return f"{len(roles)} roles, the first to expire is {name} in {days:g} days"


def _reports(document: dict[str, Any], now: float) -> str:
    """Return what is told about this machine, in a line; nothing where nothing is."""
    reports = document.get("reports")
    if not reports or not reports["send"]:
        return ""
    line = f"to {reports['url']}, last taken {_ago(reports['sent_at'], now)}"
    if reports["waiting"]:
        line += f", {reports['waiting']} waiting"
        if reports["next_attempt_at"] and reports["error"]:
            line += f" (next attempt {_ago(reports['next_attempt_at'], now)})"
    if reports["lost"]:
        line += f", {reports['lost']} lost"
    if reports["error"]:
        line += f": {reports['error']['message']} ({reports['error']['code']})"
    return line


def _product(product: dict[str, Any], now: float) -> list[str]:
    installed = product["installed"]
    shown = (
        f"{installed['version']}, installed {_ago(installed['since'], now)}"
        if installed
        else "not installed"
    )
    lines = [f"  {product['name']:<9} {shown} (channel {product['channel']})"]

    def add(label: str, text: str) -> None:
        lines.append(f"    {label:<9} {text}")

    decision = product["decision"]
    checked = f" (checked {_ago(product['checked_at'], now)})"
    add(
        "decision",
        decision["reason"] + (checked if product["checked_at"] else ""),
    )
    if product["hold"]:
        until = product["hold"]["until"]
        moment = local(until) if until else "further notice"
        why = product["hold"]["reason"]
        at = product["hold"].get("at")
        place = f"at {at} " if at else ""
        add("hold", f"{place}until {moment}" + (f" ({why})" if why else ""))
    if product["deployment"]:
        at_work = product["deployment"]
        progress = f", {text}" if (text := progress_of(product)) else ""
        add("now", f"{at_work['version']}: {at_work['state'].lower()}{progress}")
    if product["last"]:
        add(
            "last",
            f"{outcome(product['last'])}, {_ago(product['last']['ended_at'], now)}",
        )
    from datetime import datetime

    again = product["next_attempt_at"]
    if again and datetime.fromisoformat(again).timestamp() > now:
        add("next", f"attempt {_ago(again, now)}")
    elif again and not product["hold"]:
        add("next", "attempt is due")
    return lines


def progress_of(product: dict[str, Any]) -> str:
    """Return how far the download of a product is, in a few words; "": there is none.

    A document that an older daemon published says nothing of it.
    """
    from updaterd.core.units import format_bytes

    progress = product.get("progress")
    if not progress:
        return ""
    done, total = format_bytes(progress["done"]), format_bytes(progress["total"])
    return f"{progress['percent']} %, {done} of {total}"


def outcome(deployment: dict[str, Any]) -> str:
    """Return how a deployment ended, in a line."""
    from updaterd.core.units import format_bytes

    came_from = deployment["from_version"] or "nothing"
    ended = deployment["state"].lower().replace("_", " ")
    if deployment["trigger"] == "rollback" and deployment["state"] == "INSTALLED":
        ended = "rolled back by hand"
    line = f"{ended}: {came_from} -> {deployment['version']}"
    if deployment["trigger"] == "remove" and deployment["state"] == "SKIPPED":
        return f"removed: {came_from}"
    if deployment["bytes_fetched"] or deployment["bytes_planned"]:
        line += f", {format_bytes(deployment['bytes_fetched'])} fetched"
        if deployment["bytes_full"]:
            line += f" of {format_bytes(deployment['bytes_full'])} in full"
    if deployment["state"] != "INSTALLED" and deployment["reason"]:
        line += f" ({deployment['reason']})"
    return line
