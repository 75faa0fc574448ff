# SPDX-License-Identifier: Apache-2.0
"""A real application with a big binary: two consecutive releases from PyPI."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fakes.trees import snapshot

PACKAGE, PROGRAM, OLD, NEW = "rust-just", "just", "1.57.0", "1.58.0"


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Both wheels, unpacked as an installer would lay them out."""
    root = tmp_path_factory.mktemp("wheels")
    trees = []
    for version in (OLD, NEW):
        folder = root / version
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                "--only-binary=:all:", "--dest", str(folder / "dl"),
                f"{PACKAGE}=={version}",
            ],
            check=True,
        )  # fmt: skip
        (wheel,) = (folder / "dl").glob("*.whl")
        tree = folder / "tree"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tree)
        scripts = next(tree.glob("*.data/scripts"))
        (tree / "bin").mkdir()
        for script in scripts.iterdir():
            script.rename(tree / "bin" / script.name).chmod(0o755)
        scripts.rmdir()
        scripts.parent.rmdir()
        next(tree.glob("*.dist-info")).rename(tree / "meta.dist-info")
        (tree / "bin" / f"{PROGRAM}-latest").symlink_to(PROGRAM)
        trees.append(tree)
    return trees


def test_installed_tree_is_byte_identical_to_what_was_pushed(
    tmp_path: Path, site, machine, releases
):
    """Contents, modes and symlinks; the second release comes as a delta."""
    old, new = releases
    machine.config.write_text(
        machine.config.read_text().replace(
            f'["{machine.app}/current/bin/healthcheck"]',
            f'["{machine.app}/current/bin/{PROGRAM}", "--version"]',
        )
    )
    site.push(old, OLD)
    machine("update", "acme")
    assert snapshot(old) == snapshot(machine.current.resolve())
    machine.start()
    machine.wait_for(OLD)

    site.push(new, NEW)
    machine.wait_for(NEW, within_s=600)

    assert snapshot(new) == snapshot(machine.current.resolve())
    said = subprocess.run(
        [machine.current / "bin" / f"{PROGRAM}-latest", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{PROGRAM} {NEW}" == said.stdout.strip()
    last = machine.product_status()["last"]
    assert last["bytes_fetched"] < last["bytes_full"] / 2
    print(
        f"\n{PACKAGE} {OLD} -> {NEW}: {last['bytes_fetched']} bytes fetched, "
        f"{last['bytes_full']} in full"
    )
