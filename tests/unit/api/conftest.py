# SPDX-License-Identifier: Apache-2.0
"""Settings and a database of which applications ask."""

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from fakes.desk import DAY, fill

from updaterd.core.settings import (
    Directories,
    Download,
    Feed,
    Product,
    Schedule,
    Settings,
    Trust,
)
from updaterd.store.journal import Journal
from updaterd.store.schema import open_state


@pytest.fixture
def settings(tmp_path):
    return Settings(
        feed=Feed(url="https://updates.example.com/v1/events"),
        trust=Trust(root=Path("/r"), repository="https://updates.example.com/repo"),
        download=Download(),
        schedule=Schedule(max_deferral_s=7 * DAY),
        products={
            "acme": Product(
                name="acme",
                root=tmp_path / "opt",
                users=("12345",),
                groups=("54321",),
                activate="on-request",
            )
        },
        directories=Directories(
            config=tmp_path / "updaterd.toml",
            state=tmp_path,
            cache=tmp_path,
            runtime=tmp_path,
        ),
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """1.0.0 is installed, 1.1.0 is staged and waits for somebody to ask for it."""
    path = tmp_path_factory.mktemp("state") / "state.db"
    with closing(open_state(path)) as opened:
        fill(Journal(opened))
    return path


@pytest.fixture
def journal(settings):
    with closing(open_state(Path(settings.directories.state) / "state.db")) as opened:
        yield Journal(opened)


@pytest.fixture
def ready(settings, database):
    path = Path(settings.directories.state) / "state.db"
    shutil.copy(database, path)
    with closing(open_state(path)) as opened:
        yield Journal(opened)
