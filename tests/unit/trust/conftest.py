# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from fakes.origin import Origin
from fakes.repository import Client, Publisher


@pytest.fixture
def publisher(tmp_path: Path):
    made = Publisher(tmp_path / "ops")
    made.release("1.0.0")
    return made


@pytest.fixture
def origin(publisher):
    with Origin(publisher.public) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, publisher, origin):
    made = Client(tmp_path / "trust", publisher.bootstrap, origin)
    yield made
    made.close()
