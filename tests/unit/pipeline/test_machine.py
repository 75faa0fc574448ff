# SPDX-License-Identifier: Apache-2.0
"""What a run is told about the machine."""

from pathlib import Path

from updaterd.pipeline.machine import boot_id

REPO = Path(__file__).parents[3]


def test_boot_is_the_same_whoever_tells_it(tmp_path):
    """The packaged service may not see the kernel's file; a person's command does.

    Were it unknown, a release that brought the machine down would count as one whose
    worker was killed, and be tried again at once.
    """
    kernel = tmp_path / "boot_id"
    kernel.write_text("0a1b2c3d-0011-2233-4455-66778899aabb\n")
    handed = {"UPDATERD_BOOT_ID": "0a1b2c3d00112233445566778899aabb"}

    assert boot_id({}, kernel) == boot_id(handed, tmp_path / "hidden")
    assert "" == boot_id({}, tmp_path / "hidden")


def test_units_that_hide_the_boot_id_hand_it_over():
    for name in ("updaterd.service", "updaterd@.service"):
        unit = (REPO / "systemd" / name).read_text().splitlines()
        assert ("ProcSubset=pid" in unit) <= ("Environment=UPDATERD_BOOT_ID=%b" in unit)
