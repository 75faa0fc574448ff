# SPDX-License-Identifier: Apache-2.0
"""A cloud, and a publisher with somewhere to bring it."""

import pytest
from fakes.cloud import Cloud, Gate
from fakes.repository import Publisher


@pytest.fixture(scope="module")
def cloud():
    made = Cloud()
    yield made
    made.close()


@pytest.fixture
def gate(cloud, monkeypatch):
    made = Gate(cloud.port)
    for name, value in cloud.environment(made.url).items():
        monkeypatch.setenv(name, value)
    yield made
    made.close()


@pytest.fixture
def publisher(tmp_path):
    made = Publisher(tmp_path / "ops")
    made.release("1.0.0", blob=True)
    return made
