# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md: its commands are run word for word, and show what it shows."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"
BLOCK = re.compile(
    r"^<!-- (run|shows) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def steps(page):
    """Return each block of commands with the output that the page shows, or None."""
    found = []
    for kind, text in BLOCK.findall(page):
        if kind == "run":
            found.append([text, None])
        else:
            found[-1][1] = text
    return found


def pattern(shown):
    """Return what matches the output: `…` is anything in a line, alone whole lines."""
    lines = [
        r"(?:.*\n)*?"
        if line == "…"
        else ".+".join(map(re.escape, line.split("…"))) + r"\n"
        for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


# Not root, wherever the suite runs: no user's number but one, and no right of root's.
AS_A_PERSON = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def play(script, folder):
    """Run a script as a person's shell would; return its output and exit code."""
    person = AS_A_PERSON if os.geteuid() == 0 else ()
    environment = {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
    }
    with subprocess.Popen(
        [*person, "bash", "-eu", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as shell:
        try:
            output, _ = shell.communicate(timeout=900)
        except subprocess.TimeoutExpired as expired:
            shell.kill()
            pytest.fail(f"it stood still after:\n{(expired.output or b'').decode()}")
    return output, shell.returncode


def end_all_in(folder):
    """End the processes whose directory is in a folder; return their commands."""
    ended = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(folder) in os.readlink(entry / "cwd"):
                ended.append((entry / "cmdline").read_text())
                os.kill(int(entry.name), signal.SIGKILL)
    return ended


def test_commands_of_the_tutorial_show_what_it_shows(tmp_path):
    """By a person without root; and nothing is left of them: no process, no file."""
    blocks = steps(PAGE.read_text())
    mark = "=== next block ===\n"
    script = "".join(f"{commands}echo '{mark[:-1]}'\n" for commands, _ in blocks)

    try:
        output, code = play(script, tmp_path)
    finally:
        running = end_all_in(tmp_path)

    outputs = output.split(mark)
    assert (code, len(outputs)) == (0, len(blocks) + 1), output
    for (commands, shown), got in zip(blocks, outputs, strict=False):
        if shown is not None:
            assert pattern(shown).fullmatch(got), f"{commands}\nshows:\n{got}"
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert ([], []) == (running, left)


def test_every_block_of_the_tutorial_is_run_or_shown():
    """A block without a mark would rot."""
    page = PAGE.read_text()

    assert page.count("\n```") == 2 * len(BLOCK.findall(page)) > 0


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ("a … b\n", "a b\n"),
        ("a\n", "a\nmore\n"),
        ("…\nend\n", "no end here\n"),
        ("1.0.0\n", "1x0x0\n"),
    ],
)
def test_output_that_differs_is_no_match(shown, got):
    assert not pattern(shown).fullmatch(got)
