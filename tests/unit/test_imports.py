# SPDX-License-Identifier: Apache-2.0
"""What lives on other people's machines stays small: imports that must not creep in."""

import json
import subprocess
import sys

import pytest

# What the worker, the release side and the server may use, but not the daemon.
HEAVY = {
    "tuf", "securesystemslib", "cryptography", "bsdiff4", "rich", "click", "tqdm",
    "starlette", "uvicorn", "backports.zstd", "compression.zstd", "platformdirs",
    "updaterd.release", "updaterd.server", "updaterd.pipeline", "updaterd.trust",
    "updaterd.artifact", "updaterd.install",
}  # fmt: skip

PROBE = """
import json, sys
{work}
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(work: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE.format(work=work)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def options(tmp_path):
    (tmp_path / "updaterd.toml").write_text(
        f"""
[feed]
url = "https://updates.example.com/v1/events"
[trust]
root = "{tmp_path}/root.json"
repository = "https://updates.example.com/repo"
[products.acme]
root = "{tmp_path}/opt"
"""
    )
    return [
        "--config", f"{tmp_path}/updaterd.toml", "--state-dir", f"{tmp_path}/state",
        "--cache-dir", f"{tmp_path}/cache", "--runtime-dir", f"{tmp_path}/run",
    ]  # fmt: skip


def test_daemon_imports_neither_tuf_nor_a_server_library():
    found = modules_after("import updaterd.daemon.__main__")

    assert not HEAVY & found


def test_daemon_has_forgotten_the_command_line():
    """It was told everything by it, and lives for months (`cli/run.py`)."""
    found = modules_after("import updaterd.daemon.__main__")

    assert not {"argparse", "gettext", "updaterd.cli"} & found


def test_daemon_connects_without_httpx_own_machinery():
    """A subscription without a proxy loads no pool, no second kind of loop and no CA
    bundle; ctypes, difflib and the worker's fetcher's needs stay out too.
    """
    found = modules_after(
        "import updaterd.daemon.__main__\n"
        "import os\n"
        "for name in list(os.environ):\n"
        "    if name.lower().endswith('_proxy'): del os.environ[name]\n"
        "from updaterd.feed.client import EventSource\n"
        "EventSource('https://updates.example.com/v1/events')"
    )

    assert not {"httpcore", "anyio", "certifi", "sniffio", "ctypes", "difflib"} & found


def test_status_imports_neither_tuf_nor_a_server_library_nor_a_client(options):
    found = modules_after(
        f"from updaterd.cli import main\nmain(['status', *{options!r}])"
    )

    assert not (HEAVY | {"httpx", "asyncio", "structlog"}) & found


def test_daemons_httpx_brings_no_command_line():
    """With rich and click installed, a plain `import httpx` would load them."""
    assert not {"click", "rich"} & modules_after("import updaterd.net, httpx")
