# SPDX-License-Identifier: Apache-2.0
"""The clients in docs/applications.md work as they stand there."""

import json
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.machine import Machine, cli
from fakes.tools import need
from fakes.varlink import listens
from fakes.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs/applications.md"


def block(language):
    fenced = rf"^```{language}\n(.*?)^```$"
    (text,) = re.findall(fenced, PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) <= 34
    return text


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "root.json").write_text("{}")
    return Machine(
        tmp_path / "machine",
        feed="http://127.0.0.1:9/v1/events",
        repository="http://127.0.0.1:9/repo",
        bootstrap=tmp_path / "root.json",
    )


@contextmanager
def api(machine):
    """Run `updaterd api` as systemd would, at a socket of its own."""
    path = machine.root / "socket"
    process = subprocess.Popen([
        *cli.command,
        "api",
        "--socket",
        path,
        *machine.options,
    ])
    try:
        eventually(lambda: listens(path), within_s=60)
        yield path
        assert process.wait(60) == 0, "it ends by itself"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_c_and_javascript_ask_how_a_product_stands(machine, tmp_path):
    source, program = tmp_path / "client.c", tmp_path / "client"
    source.write_text(block("c"))
    subprocess.run(
        [need("gcc"), "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True
    )
    script = tmp_path / "client.js"
    script.write_text(block("js"))
    node = need("node", "nodejs")
    with api(machine) as path:
        for command in ([program], [node, script]):
            done = subprocess.run(
                [*command, "acme", path],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            answer = json.loads(done.stdout.splitlines()[0])
            assert answer["parameters"]["status"]["state"] == "not_installed"
