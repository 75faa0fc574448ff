# SPDX-License-Identifier: Apache-2.0
"""What lives on other people's machines stays small: imports that must not creep in."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from fakes.origin import Origin
from fakes.repository import Publisher, manifest_of

from updaterd.core.bundle_kinds import FULL
from updaterd.core.routes import codec_name

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


# All that a look may load besides updaterd and the standard library; backports.zstd
# where there is a release to be had and a bundle to be chosen.
FOR_A_LOOK = {"backports", "cryptography", "h11", "securesystemslib", "tuf"}
# Of the standard library, what costs much: tens of milliseconds of CPU on each machine.
COSTLY = {
    "asyncio",
    "email",
    "http",
    "structlog",
    "importlib.metadata",
    "urllib.request",
}


def configured(folder, repository, root):
    (folder / "updaterd.toml").write_text(
        f"""
[feed]
url = "{repository}/v1/events"
[trust]
root = "{root}"
repository = "{repository}"
[products.acme]
root = "{folder}/opt"
"""
    )
    return [
        "--config", f"{folder}/updaterd.toml", "--state-dir", f"{folder}/state",
        "--cache-dir", f"{folder}/cache", "--runtime-dir", f"{folder}/run",
    ]  # fmt: skip


@pytest.fixture
def options(tmp_path):
    return configured(
        tmp_path, "https://updates.example.com/repo", f"{tmp_path}/root.json"
    )


def foreign(found):
    """Return the packages that are neither ours nor the standard library's."""
    tops = {name for name in found if "." not in name}
    known = {*sys.stdlib_module_names, "updaterd", "__main__", "_cffi_backend"}
    return {top for top in tops - known if not top.startswith(("__editable", "_"))}


def test_a_look_loads_no_more_than_it_needs(tmp_path):
    """On each machine, for each push: imports are most of its CPU (decision 0041)."""
    publisher = Publisher(tmp_path / "ops")
    full = manifest_of("acme", "1.0.0", 1).full
    known = replace(full, codec=codec_name(FULL, frozenset()))
    publisher.release("1.0.0", full=known)
    root = publisher.metadata / "1.root.json"
    (tmp_path / "opt").mkdir()
    with Origin(publisher.public) as origin:
        words = ["check", "--demo", *configured(tmp_path, origin.url, root)]
        found = modules_after(
            "import os\n"
            "for name in list(os.environ):\n"
            "    if name.lower().endswith('_proxy'): del os.environ[name]\n"
            f"from updaterd.cli import main\nassert main({words!r}) == 10"
        )

    assert foreign(found) <= FOR_A_LOOK
    assert not COSTLY & found
    assert not {name for name in found if name.startswith("updaterd.release")}


def test_what_builds_a_release_is_loaded_where_there_is_one():
    """Most looks find nothing to install (decision 0041)."""
    found = modules_after(
        "from updaterd.cli.parts.options import load_pipeline\n"
        "load_pipeline()\n"
        "import updaterd.cli.update, updaterd.pipeline.update"
    )

    assert "updaterd.pipeline.decision.look" in found
    assert (
        not {
            "updaterd.artifact.worker.parent",
            "updaterd.pipeline.tree.acquire",
            "uuid",
            "zoneinfo",
        }
        & found
    )


def test_python_tuf_signs_nothing_in_a_look_and_all_elsewhere():
    """What is kept out is kept out of that process alone, and of no later import."""
    found = modules_after("from updaterd.trust import lean\nlean.load()\nimport hvac")
    whole = modules_after("import updaterd.trust.client")

    assert not {"urllib3.poolmanager", "pkcs11"} & (found - whole)
    assert "hvac" in found
    assert {"hvac", "pkcs11", "urllib3"} <= whole


def test_daemon_imports_neither_tuf_nor_a_server_library():
    found = modules_after("import updaterd.daemon.__main__")

    assert not HEAVY & found


def test_daemon_shows_what_waits_and_decides_nothing():
    """The rules are the worker's; with them the idle daemon was 1.3 MiB larger."""
    found = modules_after("import updaterd.daemon.__main__, updaterd.daemon.service")

    assert "updaterd.core.deferral" in found
    assert not {f"updaterd.core.{n}" for n in ("decision", "channel", "plan")} & found


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
