# SPDX-License-Identifier: Apache-2.0
"""What holds for every test."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

import updaterd

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it for what it starts in the background. Commands that tests
    # interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no defect: examples are counted, not timed.
settings.register_profile("updaterd", deadline=None)
settings.load_profile("updaterd")

ROOT = Path(__file__).resolve().parent.parent


def pytest_sessionstart(session: pytest.Session) -> None:
    """In CI the tests meet the installed wheel, never the source folder.

    A file that was forgotten in the wheel would otherwise be found all the same.
    """
    if os.environ.get("CI") == "true":
        source = ROOT / "updaterd" / "__init__.py"
        if Path(updaterd.__file__).resolve() == source:
            pytest.exit("updaterd comes from the source folder, not from a wheel", 3)


def pytest_report_header() -> str:
    """Say which updaterd is tested."""
    return f"updaterd {updaterd.__version__} from {Path(updaterd.__file__).parent}"
