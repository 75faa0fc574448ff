# SPDX-License-Identifier: Apache-2.0
"""Findings in the settings, and in the files that they name."""

import os
from collections.abc import Iterator
from pathlib import Path

from updaterd import net
from updaterd.cli.config.finding import Finding, of_error
from updaterd.core import windows
from updaterd.core.settings import Settings
from updaterd.errors import BrokenError
from updaterd.files import ownership
from updaterd.install import commands
from updaterd.pipeline.machine import zones
from updaterd.trust.client import check_bootstrap


def findings(settings: Settings) -> list[Finding]:
    """Return what the daemon or its workers would refuse."""
    return [
        *_addresses(settings),
        *_zones(settings),
        *_files(settings),
        *_proxies(settings),
        *_bootstrap(settings),
        *_commands(settings),
    ]


def notes(settings: Settings) -> tuple[str, ...]:
    """Return what of this environment's proxies is left out, where it counts."""
    proxies = settings.feed.network.proxy, settings.trust.network.proxy
    return net.environment_proxies().ignored if None in proxies else ()


def _addresses(settings: Settings) -> Iterator[Finding]:
    for key, url in (
        ("feed.url", settings.feed.url),
        ("trust.repository", settings.trust.repository),
        *(("trust.mirrors", mirror) for mirror in settings.trust.mirrors),
    ):
        try:
            net.require_secure(url)
        except BrokenError as error:
            yield of_error(key, error)


def _zones(settings: Settings) -> Iterator[Finding]:
    if settings.schedule.window is None:
        return
    for window in windows.parse_window(settings.schedule.window):
        try:
            zones(window.zone)
        except BrokenError as error:
            yield of_error("schedule.window", error)


def _files(settings: Settings) -> Iterator[Finding]:
    """Test the files of TLS and headers by using them."""
    for table, network in (
        ("feed", settings.feed.network),
        ("trust", settings.trust.network),
    ):
        try:
            if network.headers_file is not None:
                net.read_headers(network.headers_file)
        except BrokenError as error:
            yield of_error(f"{table}.headers_file", error)
        try:
            if network.ca_file is not None:
                net.tls_context(network.ca_file)
        except BrokenError as error:
            yield of_error(f"{table}.ca_file", error)


def _proxies(settings: Settings) -> Iterator[Finding]:
    for table, network in (
        ("feed", settings.feed.network),
        ("trust", settings.trust.network),
    ):
        if network.proxy is not None and (why := net.proxy_fault(network.proxy)):
            yield Finding(code="proxy", cause=f"{table}.proxy {why}", do="correct it")


def _bootstrap(settings: Settings) -> Iterator[Finding]:
    """Read the first root, and verify it as a worker would."""
    root = Path(settings.trust.root)
    try:
        check_bootstrap(root.read_bytes(), demo=settings.demo)
    except OSError as error:
        yield Finding(
            code="bad_root",
            cause=f"trust.root: cannot read {root}: {error.strerror}",
            do="put the repository's 1.root.json there, readable for the daemon's user",
        )
    except BrokenError as error:
        yield of_error("trust.root", error)


def _commands(settings: Settings) -> Iterator[Finding]:
    trusted = ownership.owners(settings.directories.state)
    for product in settings.products.values():
        for purpose, argv in commands.configured(product):
            if not os.path.isabs(argv[0]) and purpose.startswith("health"):
                key = f"products.{product.name}.health.command"
                yield Finding(
                    code="no_such_command",
                    cause=f"{key} must start with an absolute path",
                    do="write the whole path",
                )
            elif fault := commands.fault(argv, trusted):
                yield Finding(
                    code="unsafe_command",
                    cause=f"{purpose}: {fault}",
                    do="let only root, or the daemon's user, write it",
                )
