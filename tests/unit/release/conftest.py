# SPDX-License-Identifier: Apache-2.0
"""What tests of publishing share: somebody who publishes, and a machine that looks."""

from pathlib import Path

import pytest
from fakes.origin import Origin
from fakes.repository import Client, Publisher


@pytest.fixture
def publisher(tmp_path: Path):
    made = Publisher(tmp_path / "ops", channels=("stable", "beta"))
    made.release("1.0.0")
    return made


@pytest.fixture
def client(tmp_path: Path, publisher):
    with Origin(publisher.public) as origin:
        made = Client(tmp_path / "trust", publisher.bootstrap, origin)
        yield made
        made.close()
