# SPDX-License-Identifier: Apache-2.0
"""Patches made by the `bsdiff` program, from a pipeline that knows nothing of us."""

import random
import subprocess

import pytest
from fakes.machine import cli
from fakes.tools import need
from fakes.trees import make_tree, snapshot


def _tree(tmp_path, version):
    draw = random.Random(1)
    code = bytearray(draw.randbytes(60_000))
    code[1000:1003] = version.encode()[:3]
    return make_tree(
        tmp_path / "build" / version,
        {
            "bin/healthcheck": "#!/bin/sh\nexit 0\n",
            "bin/app": bytes(code),
            "bin-notes": f"notes of {version}\n" * 99,  # sorts before `bin/app`
            "bin/link": "-> app",
            "share/empty": b"",
        },
    )


def _joined(tree, out):
    """Return all regular files one after another, as docs/formats.md says it."""
    subprocess.run(  # noqa: S602 - as the documentation has it
        "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 cat > "
        f"{out.absolute()}",
        shell=True,
        cwd=tree,
        check=True,
    )
    return out


@pytest.fixture
def pair(tmp_path, site, machine):
    """1.0.0 installed; 1.1.0 built, and the patch to it."""
    old, new = _tree(tmp_path, "1.0.0"), _tree(tmp_path, "1.1.0")
    site.push(old, "1.0.0")
    machine("update", "acme")
    a, b = _joined(old, tmp_path / "a"), _joined(new, tmp_path / "b")
    patch = tmp_path / "patch"
    subprocess.run([need("bsdiff"), a, b, patch], check=True)
    return new, patch


def test_a_patch_of_the_bsdiff_program_is_what_machines_download(
    pair, site, machine, tmp_path
):
    """Pushed with no delta of our own: the plan names it, its bytes are fetched."""
    new, patch = pair
    said = site.push(new, "1.1.0", "--deltas", 0, "--bsdiff", f"1.0.0={patch}")
    size = patch.stat().st_size
    assert f"delta from 1.0.0: {size:,}" in said.stdout

    plan = machine("update", "acme", "--explain", expect=10).stdout
    assert f"delta 1.0.0 -> 1.1.0, {size} B" in plan
    machine("update", "acme")

    assert snapshot(new) == snapshot(machine.current.resolve())
    assert size == machine.product_status()["last"]["bytes_fetched"]


def test_a_patch_that_makes_something_else_is_not_signed(pair, site, tmp_path):
    """Swapped, of another release, or no patch at all: said before anything happens."""
    new, patch = pair
    other = make_tree(tmp_path / "build" / "other", {"bin/app": b"other" * 999})
    for tree, given in (
        (other, f"1.0.0={patch}"),
        (new, f"1.0.0={tmp_path / 'a'}"),
        (new, f"0.9.0={patch}"),
        (new, f"1.0.0={tmp_path / 'absent'}"),
    ):
        done = cli(
            *("release", "push", tree, "--repo", site.workspace, "--no-announce"),
            *(
                "--product",
                "acme",
                "--channel",
                "stable",
                "--version",
                "1.1.0",
                "--bsdiff",
                given,
            ),
            expect=None,
        )
        assert done.returncode
        assert "Traceback" not in done.stderr
    listed = cli("release", "status", "--repo", site.workspace).stdout
    assert "1.0.0" in listed
    assert "1.1.0" not in listed
