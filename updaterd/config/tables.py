# SPDX-License-Identifier: Apache-2.0
"""The tables of the configuration, into frozen settings; mistakes are collected."""

import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from updaterd.config.errors import ConfigError
from updaterd.core import deferral
from updaterd.core.names import check_name
from updaterd.core.proxies import fault_of
from updaterd.core.settings import (
    ITSELF,
    Directories,
    Download,
    Enrolment,
    Feed,
    Health,
    Hooks,
    Network,
    Product,
    Reports,
    RequiredAttestation,
    Schedule,
    Settings,
    Trust,
)
from updaterd.core.special import KINDS
from updaterd.core.toml_fields import Table
from updaterd.core.units import parse_bytes, parse_rate
from updaterd.errors import MalformedError
from updaterd.files import roots

ENROLMENT = "enrolment.json"  # in the state directory
_OWN_HOOK_S = 300.0
SELF_TEST = Path("/usr/lib/updaterd/self-test")  # the package's


def _network(
    table: Table, inherit: Network | None = None, *, token_file: PurePath | None = None
) -> Network:
    headers = table.table("headers")
    ca_file = table.path("ca_file")
    proxy = table.text("proxy")
    if proxy and (why := fault_of(proxy)):
        table.wrong("proxy", why)
    return Network(
        headers={name: headers.text(name) for name in headers.names()},
        headers_file=table.path("headers_file"),
        # Credentials are never inherited: the repository may be another origin.
        ca_file=ca_file or (inherit.ca_file if inherit else None),
        proxy=proxy or (inherit.proxy if inherit else None),
        # it says itself which server it is for
        token_file=token_file or (inherit.token_file if inherit else None),
    )


def _feed(table: Table, token_file: PurePath) -> Feed:
    feed = Feed(
        url=table.text("url", required=True),
        network=_network(table, token_file=token_file),
        backoff_min_s=table.seconds("backoff_min_s", 1.0, low=0.05),
        backoff_max_s=table.seconds("backoff_max_s", 300.0, low=0.05),
        idle_timeout_s=table.seconds("idle_timeout_s", 45.0, low=0.5),
        fallback_poll_s=table.seconds("fallback_poll_s", 21600.0, low=1.0),
    )
    if feed.backoff_min_s > feed.backoff_max_s:
        table.wrong("backoff_min_s", "must not exceed backoff_max_s")
    table.done()
    return feed


def _trust(table: Table, feed: Feed) -> Trust:
    trust = Trust(
        root=table.path("root", required=True) or Path("/"),
        repository=table.text("repository", required=True).rstrip("/"),
        mirrors=tuple(url.rstrip("/") for url in table.words("mirrors")),
        network=_network(table, feed.network),
    )
    table.done()
    return trust


_HOST = r"(\*\.)?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:\d{1,5})?"


def _download(table: Table) -> Download:
    sizes: dict[str, int | None] = {
        "max_rate": None,
        "min_free": 500 * 2**20,
        "metered_max": 2**20,
    }
    for key, parse in (
        ("max_rate", parse_rate),
        ("min_free", parse_bytes),
        ("metered_max", parse_bytes),
    ):
        text = table.text(key)
        if text:
            try:
                sizes[key] = parse(text)
            except MalformedError as error:
                table.wrong(key, str(error))
    metered = _hold_or_allow(table, "metered", "hold")
    hosts = table.words("redirect_hosts")
    for host in hosts:
        if re.fullmatch(_HOST, host) is None:
            table.wrong(
                "redirect_hosts",
                f"{host!r:.100} is no host such as objects.example.com or "
                "*.example.com",
            )
    table.done()
    return Download(
        max_rate=sizes["max_rate"],
        min_free=sizes["min_free"] or 0,
        redirect_hosts=hosts,
        metered=metered,
        metered_max=sizes["metered_max"] or 0,
    )


def _hold_or_allow(table: Table, key: str, default: str) -> str:
    text = table.text(key, default)
    if text not in ("hold", "allow"):
        table.wrong(key, "must be hold or allow")
    return text


def _schedule(table: Table) -> Schedule:
    schedule = Schedule(
        window=table.text("window") or None,
        max_deferral_s=table.seconds("max_deferral", 7 * 86400.0),
        on_battery=_hold_or_allow(table, "on_battery", "allow"),
    )
    if schedule.window is not None:
        from updaterd.core import windows  # noqa: PLC0415 - rarely used

        try:
            windows.parse_window(schedule.window)
        except MalformedError as error:
            table.wrong("window", str(error))
    table.done()
    return schedule


def _reports(table: Table, feed: Feed) -> Reports:
    send = table.flag("send", default=False)
    url = table.text("url")
    events, reports = "/v1/events", "/v1/reports"
    if not url and feed.url.endswith(events):
        url = feed.url.removesuffix(events) + reports
    if send and not url:
        table.wrong("url", f"is missing: the feed's address does not end in {events}")
    settings = Reports(
        send=send,
        url=url,
        tags=_tags(table),
        sign_of_life=table.flag("sign_of_life", default=False),
        network=_network(table, feed.network),
    )
    table.done()
    return settings


def _enrolment(table: Table, feed: Feed) -> Enrolment:
    url = table.text("url")
    events, enroll = "/v1/events", "/v1/enroll"
    if not url and feed.url.endswith(events):
        url = feed.url.removesuffix(events) + enroll
    settings = Enrolment(url=url, network=_network(table, feed.network))
    table.done()
    return settings


def _tags(table: Table) -> tuple[str, ...]:
    """Return the key `tags`: words that a machine is called by."""
    tags = table.words("tags")
    if not tags:
        return ()
    from updaterd.core import report  # noqa: PLC0415 - the daemon reads it elsewhere

    if wrong := [tag for tag in tags if not report.is_tag(tag)]:
        table.wrong("tags", f"{wrong[0]!r:.80} is not a word of a-z, 0-9, '-' and '_'")
    if len(tags) > report.MOST_TAGS:
        table.wrong("tags", f"has {len(tags)}, the limit is {report.MOST_TAGS}")
    return tuple(sorted(set(tags)))


def _product(table: Table, name: str) -> Product:
    try:
        check_name("product", name)
        check_name("channel", table.text("channel", "stable"))
    except MalformedError as error:
        table.wrong("channel", str(error))
    health, hooks = table.table("health"), table.table("hooks")
    unchanged = table.text("unchanged", "reflink")
    if unchanged not in ("reflink", "hardlink", "copy"):
        table.wrong("unchanged", "must be reflink, hardlink or copy")
    product = Product(
        name=name,
        root=table.path("root", required=True) or Path("/"),
        channel=table.text("channel", "stable"),
        keep=table.whole("keep", 2, low=1),
        units=table.words("units"),
        users=table.words("users"),
        groups=table.words("groups"),
        activate=_activate(table),
        unchanged=unchanged,
        outside_links=_outside_links(table),
        special_modes=_special_modes(table),
        require_attestation=_required_attestation(table),
        health=_health(health),
        hooks=Hooks(
            pre_stage=hooks.words("pre_stage"),
            # an updater must not be switched to untested for want of a line
            self_test=hooks.words("self_test") or _own_self_test(name),
            pre_activate=hooks.words("pre_activate"),
            post_activate=hooks.words("post_activate"),
            post_rollback=hooks.words("post_rollback"),
            timeout_s=hooks.seconds("timeout_s", _patience_s(name), low=0.1),
        ),
    )
    for part in (health, hooks, table):
        part.done()
    return product


def _activate(table: Table) -> str:
    """Return when a release that is ready is activated."""
    mode = table.text("activate", deferral.AT_ONCE)
    if mode not in deferral.MODES:
        table.wrong("activate", f"must be one of {', '.join(deferral.MODES)}")
    if mode == deferral.AT_EXIT and table.words("units"):
        table.wrong(
            "activate",
            "cannot be at-exit for a product with units: they end only when they are "
            "restarted",
        )
    return mode


def _health(table: Table) -> Health:
    """Read what is declared in `Health`: each key by the type of its default.

    Raises:
        TypeError: a key was declared with a default of another type.
    """
    values: dict[str, Any] = {}
    for key in fields(Health):
        if isinstance(key.default, tuple):
            values[key.name] = table.words(key.name)
        elif isinstance(key.default, float):
            low = key.metadata.get("low", 0.0)
            values[key.name] = table.seconds(key.name, key.default, low=low)
        elif key.default is None:
            values[key.name] = table.text(key.name) or None
        else:
            raise TypeError(f"no key of the configuration is like {key.name}")
    return Health(**values)


def _special_modes(table: Table) -> tuple[str, ...]:
    """Return which rights beyond its owner's a release may give its files."""
    modes = table.words("special_modes")
    if unknown := set(modes) - KINDS.keys():
        table.wrong(
            "special_modes", f"{min(unknown)!r:.80} is none of {', '.join(KINDS)}"
        )
    return modes


def _required_attestation(table: Table) -> RequiredAttestation | None:
    """Return what must be attested of a release; None: nothing."""
    part = table.table("require_attestation")
    if not table.has("require_attestation"):
        return None
    required = RequiredAttestation(
        predicate_type=part.text("predicate_type", required=True),
        key=part.path("key", required=True) or Path("/"),
    )
    part.done()
    return required


def _outside_links(table: Table) -> tuple[str, ...]:
    """Return where links of a release may lead: absolute paths, none for everywhere."""
    paths = table.words("outside_links")
    for path in paths:
        if os.path.normpath(path).lstrip("/") == "" or not path.startswith("/"):
            table.wrong("outside_links", f"{path!r:.80} must be an absolute path")
    return tuple(os.path.normpath(path) for path in paths)


def _patience_s(product: str) -> float:
    """Return how long a hook may take where the owner says nothing.

    The self-test of updaterd installs and updates a tree by code that no interpreter
    has compiled yet: on a small or busy machine that takes longer than a minute, and
    one that never finished it would never be updated.
    """
    return _OWN_HOOK_S if product == ITSELF else Hooks().timeout_s


def _own_self_test(product: str) -> tuple[str, ...]:
    """Return the packaged self-test for updaterd itself, nothing for others."""
    is_packaged = product == ITSELF and SELF_TEST.exists()
    return (str(SELF_TEST),) if is_packaged else ()


def read(document: Mapping[str, object], directories: Directories) -> Settings:
    """Return the settings in a parsed document.

    Raises:
        ConfigError: with every mistake in it.
    """
    mistakes: list[str] = []
    top = Table(document, "", mistakes)
    feed = _feed(top.table("feed"), directories.state / ENROLMENT)
    trust = _trust(top.table("trust"), feed)
    download = _download(top.table("download"))
    schedule = _schedule(top.table("schedule"))
    reports = _reports(top.table("reports"), feed)
    enrolment = _enrolment(top.table("enrolment"), feed)
    tags = _tags(top)
    listed = top.table("products")
    products = {name: _product(listed.table(name), name) for name in listed.names()}
    top.done()
    mistakes += [
        f"products.{name}.activate is window, and schedule.window is not set"
        for name, product in products.items()
        if product.activate == deferral.WINDOW and schedule.window is None
    ]
    # Two products in one tree would prune each other's releases.
    mistakes += roots.shared(products.values())
    if mistakes:
        raise ConfigError(
            f"{directories.config} has {len(mistakes)} "
            + ("mistakes" if len(mistakes) > 1 else "mistake"),
            mistakes,
        )
    return Settings(
        tags=tags,
        feed=feed,
        trust=trust,
        download=download,
        schedule=schedule,
        products=products,
        directories=directories,
        reports=reports,
        enrolment=enrolment,
    )
