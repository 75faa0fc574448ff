# SPDX-License-Identifier: Apache-2.0
"""What holds for every test."""

import gc
import os
import signal
from pathlib import Path

import pytest
import structlog
from fakes.machine import cli
from hypothesis import settings

import updaterd

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it for what it starts in the background. Commands that tests
    # interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no defect: examples are counted, not timed. CONTRIBUTING.md
settings.register_profile(
    "updaterd",
    deadline=None,
    max_examples=int(os.environ.get("UPDATERD_EXAMPLES", "40")),
)
settings.load_profile("updaterd")

pytest_plugins = ["costs"]

ROOT = Path(__file__).resolve().parent.parent
QUICK = "tests/unit/"
"""Where tests are quick unless they are marked; elsewhere they are slow."""
LONGEST = (
    "tests/faults/test_kill_points.py",
    "tests/e2e/test_publishing_histories.py",
    "tests/faults/",
    "tests/packaging/",
    "tests/e2e/",
    "tests/security/",
    "tests/local/",
    "tests/server/",
)
"""What comes first, so that no worker is alone with a long module in the end."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config):
    """Do not even read the slow modules where only the quick tests are asked for."""
    outside = (
        collection_path.parent == ROOT / "tests" and collection_path.name != "unit"
    )
    return (outside and config.option.markexpr == "not slow") or None


@pytest.hookimpl(tryfirst=True)  # `-m` looks at marks later
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by its place; put the longest modules first."""
    places: dict[Path, int] = {}
    for item in items:
        path = item.path
        if path not in places:
            name = path.relative_to(ROOT).as_posix()
            matches = (n for n, start in enumerate(LONGEST) if name.startswith(start))
            places[path] = next(matches, len(LONGEST) + name.startswith(QUICK))
        if places[path] <= len(LONGEST):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(scope="module", autouse=True)
def _leaves_no_garbage():
    """What a module leaves unclosed is its own error, not that of any later test.

    Nor does a log that it has set up take the lines of others.
    """
    yield
    structlog.reset_defaults()
    gc.collect()
    gc.freeze()  # what is alive now costs the next collection nothing


@pytest.fixture(scope="module")
def as_typed():
    """Start each `updaterd ...` in an interpreter of its own, as a shell does."""
    cli.as_typed = True
    yield
    cli.as_typed = False


def pytest_sessionfinish() -> None:
    """End the process that starts commands."""
    cli.starter.close()


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
