# SPDX-License-Identifier: Apache-2.0
"""What a rollout draws a machine's cohort from."""

from updaterd.pipeline.machine import machine_id


def test_machines_on_one_computer_are_told_apart_by_their_state(tmp_path):
    """Each has an id in its state directory, which counts before /etc/machine-id."""
    (tmp_path / "etc").write_text("the computer\n")
    (tmp_path / "machine-id").write_text("shop-1\n")

    assert "shop-1" == machine_id(tmp_path, etc=tmp_path / "etc")


def test_a_machine_is_what_systemd_says(tmp_path):
    (tmp_path / "etc").write_text("the computer\n")

    assert "the computer" == machine_id(tmp_path, etc=tmp_path / "etc")
    assert not (tmp_path / "machine-id").exists()


def test_an_id_that_was_drawn_stays(tmp_path):
    """Also when systemd has one later: a rollout must not reach the machine twice."""
    drawn = machine_id(tmp_path, etc=tmp_path / "etc")
    (tmp_path / "etc").write_text("the computer\n")

    assert drawn == machine_id(tmp_path, etc=tmp_path / "etc")
