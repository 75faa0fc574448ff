# SPDX-License-Identifier: Apache-2.0
"""docs/privacy.md names every field that leaves a machine, and none that does not."""

import re
from pathlib import Path

from updaterd.core import report

PAGE = (Path(__file__).parents[3] / "docs/privacy.md").read_text()


def test_page_has_every_field_of_a_report_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)

    assert rows == ["schema", *report.FIELDS]


def test_page_tells_the_limits_that_the_code_has():
    from updaterd.store import outbox, report_rows

    assert f"{report_rows.MOST_ROWS:,} reports" in PAGE
    assert f"{report_rows.MOST_AGE_S / 86400:.0f} days" in PAGE
    assert f"last {outbox.KEPT} " in PAGE
