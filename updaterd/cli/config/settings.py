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


def findings(given: Settings) -> list[Finding]:
    """Return what the daemon or its workers would refuse."""
    return [
        *_addresses(given),
        *_zones(given),
        *_files(given),
        *_proxies(given),
        *_bootstrap(given),
        *_commands(given),
    ]


def notes(given: Settings) -> tuple[str, ...]:
    """Return what of this environment's proxies is left out, where it counts."""
    proxies = given.feed.network.proxy, given.trust.network.proxy
    return net.environment_proxies().ignored if None in proxies else ()


def _addresses(given: Settings) -> Iterator[Finding]:
    for key, url in (
        ("feed.url", given.feed.url),
        ("trust.repository", given.trust.repository),
        *(("trust.mirrors", mirror) for mirror in given.trust.mirrors),
    ):
        try:
            net.require_secure(url)
        except BrokenError as error:
            yield of_error(key, error)


def _zones(given: Settings) -> Iterator[Finding]:
    if given.schedule.window is None:
        return
    for window in windows.parse_window(given.schedule.window):
        try:
            zones(window.zone)
        except BrokenError as error:
            yield of_error("schedule.window", error)


def _files(given: Settings) -> Iterator[Finding]:
    """Test the files of TLS and headers by using them."""
    for table, network in (
        ("feed", given.feed.network),
        ("trust", given.trust.network),
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


def _proxies(given: Settings) -> Iterator[Finding]:
    for table, network in (
        ("feed", given.feed.network),
        ("trust", given.trust.network),
    ):
        if network.proxy is not None and (why := net.proxy_fault(network.proxy)):
            yield Finding(code="proxy", what=f"{table}.proxy {why}", do="correct it")


def _bootstrap(given: Settings) -> Iterator[Finding]:
    """Read the first root, and verify it as a worker would."""
    root = Path(given.trust.root)
    try:
        check_bootstrap(root.read_bytes(), demo=given.demo)
    except OSError as error:
        yield Finding(
            code="bad_root",
            what=f"trust.root: cannot read {root}: {error.strerror}",
            do="put the repository's 1.root.json there, readable for the daemon's user",
        )
    except BrokenError as error:
        yield of_error("trust.root", error)


def _commands(given: Settings) -> Iterator[Finding]:
    trusted = ownership.owners(given.directories.state)
    for product in given.products.values():
        for what, argv in commands.configured(product):
            if not os.path.isabs(argv[0]) and what.startswith("health"):
                key = f"products.{product.name}.health.command"
                yield Finding(
                    code="no_such_command",
                    what=f"{key} must start with an absolute path",
                    do="write the whole path",
                )
            elif said := commands.fault(argv, trusted):
                yield Finding(
                    code="unsafe_command",
                    what=f"{what}: {said}",
                    do="let only root, or the daemon's user, write it",
                )
