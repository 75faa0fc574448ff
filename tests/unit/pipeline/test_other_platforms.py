# SPDX-License-Identifier: Apache-2.0
"""A release that was not made for this machine is none of its business."""

import pytest
from fakes.rig import Rig
from fakes.worker import update, worker

pytestmark = pytest.mark.slow

OTHER = "linux-riscv64"


def test_a_release_for_other_platforms_only_is_no_error(tmp_path):
    """Published by an updaterd that did not say for whom: what is installed stays."""
    rig = Rig(tmp_path)
    try:
        rig.push("1.0.0")
        with worker(rig.machine) as services:
            assert update(rig.machine, services).result == "installed"
            rig.publisher.release("1.1.0", platform=OTHER)
            found = update(rig.machine, services)
            assert (found.result, found.code) == ("current", "not_for_platform")
            assert OTHER not in found.reason
            assert services.platform in found.reason
            rig.push("1.2.0")
            assert update(rig.machine, services).version == "1.2.0"
    finally:
        rig.close()
