# SPDX-License-Identifier: Apache-2.0
"""`updaterd demo`: every step checked, and nothing left behind."""

import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from fakes.machine import cli

pytestmark = pytest.mark.usefixtures("as_typed")


def processes_below(folder: Path) -> list[str]:
    """Return the command lines that name something in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def test_demo_tells_the_whole_story_and_cleans_up(tmp_path):
    done = cli("demo", env={"TMPDIR": str(tmp_path)})

    for claim in (
        "the feed answers",
        "an event brought it",
        "as a delta",
        "its health check failed",
        "1.2.0 is blocked",
        "SIGKILL hit daemon and worker",
        "the next start finished 1.3.0",
        "the history tells all of it",
        "checks held",
    ):
        assert claim in done.stdout
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_below(tmp_path)


def test_demo_of_a_fleet_ends_in_a_console_and_cleans_up(tmp_path):
    with subprocess.Popen(
        [*cli.command, "demo", "--fleet", "4"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        text = ""
        for line in demo.stdout:
            text += line
            if "Ctrl-C ends it" in line:
                break
        assert "counted 1.1.0: installed on 4" in text
        assert "counted 1.2.0: installed on 3, rolled back on 1" in text
        console = text.partition("console: ")[2].split()[0]
        with urllib.request.urlopen(console, timeout=30) as answer:  # noqa: S310 - ours
            assert "Sign in" in answer.read().decode()
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
    assert demo.returncode == 0
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_below(tmp_path)


def test_demo_that_fails_says_why_and_cleans_up_too(tmp_path):
    """Its folder cannot hold a release: the disk is a file."""
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [*cli.command, "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": ""},
        preexec_fn=_small_files,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert ["bin"] == [path.name for path in tmp_path.iterdir()]
    assert [] == processes_below(tmp_path)


def test_demo_that_is_ended_from_outside_cleans_up(tmp_path):
    """`timeout 60 updaterd demo`, or a terminal that is closed."""
    with subprocess.Popen(
        [*cli.command, "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as demo:
        for line in demo.stdout:
            if "the feed answers" in line:
                demo.send_signal(signal.SIGTERM)
                break
        demo.stdout.read()
        assert 130 == demo.wait(120)

    assert [] == list(tmp_path.iterdir())
    assert [] == processes_below(tmp_path)


def _small_files():
    """No process below may write a file of more than 1 MiB."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
