# SPDX-License-Identifier: Apache-2.0
import pytest

from security.siege import Siege


@pytest.fixture(scope="module")
def siege(tmp_path_factory):
    """A daemon that lives through one attack after the other."""
    made = Siege(tmp_path_factory.mktemp("siege"))
    yield made
    made.close()
