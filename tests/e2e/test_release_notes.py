# SPDX-License-Identifier: Apache-2.0
"""What is new is read on the machine, without a network and by whoever uses it."""

import pytest
from fakes.trees import make_tree

pytestmark = pytest.mark.usefixtures("as_typed")


def test_notes_of_a_release_are_shown_where_it_runs(tmp_path, site, machine):
    assert "acme: nothing is installed" in machine("status", "--notes").stdout
    tree = make_tree(tmp_path / "1.0", {"bin/healthcheck": "#!/bin/sh\nexit 0\n"})
    (tmp_path / "notes.md").write_text("It is **faster**.\n")
    (tmp_path / "de.md").write_text("Es ist schneller.\n")
    site.push(
        tree, "1.0", "--notes", tmp_path / "notes.md", "--notes",
        f"de={tmp_path / 'de.md'}",
    )  # fmt: skip
    machine("update", "acme")
    site.hard_stop()

    shown = machine("status", "--notes", "acme").stdout

    assert shown == "acme 1.0 (installed)\n\nIt is **faster**.\n"
    wrong = machine("status", "--notes", "other", expect=None)
    assert "no product 'other'" in wrong.stderr
