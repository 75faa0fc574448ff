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
    assert ["etc"] == [path.name for path in tmp_path.iterdir()]


def test_an_id_that_was_drawn_stays(tmp_path):
    """A rollout must not reach the machine twice."""
    drawn = machine_id(tmp_path, etc=tmp_path / "etc")

    assert drawn == machine_id(tmp_path, etc=tmp_path / "etc")


def test_copies_of_an_image_that_was_used_are_told_apart(tmp_path):
    """What the image drew, while it had no id of systemd's, is not what they are."""
    machine_id(tmp_path, etc=tmp_path / "etc")
    (tmp_path / "etc").write_text("a copy\n")

    assert "a copy" == machine_id(tmp_path, etc=tmp_path / "etc")
