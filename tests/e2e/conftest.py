# SPDX-License-Identifier: Apache-2.0
"""The whole road, real processes, one folder a test."""

import pytest
from fakes.machine import Machine
from fakes.site import Site


@pytest.fixture
def site(tmp_path):
    """A release workspace with a running feed server."""
    found = Site(tmp_path / "site-root")
    found.start()
    yield found
    found.hard_stop()


@pytest.fixture
def machine(tmp_path, site):
    """A machine that follows the site; its application has a health check."""
    root = tmp_path / "machine"
    found = Machine(
        root,
        feed=site.feed_url,
        repository=f"{site.address}/repo",
        bootstrap=site.bootstrap,
        health=[str(root / "opt" / "acme" / "current" / "bin" / "healthcheck")],
    )
    yield found
    found.stop()
