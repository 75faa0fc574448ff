# SPDX-License-Identifier: Apache-2.0
"""What commands print reaches whoever reads it, or nobody; it never ends the work."""

import subprocess
import sys

import pytest
from fakes.machine import Machine, cli

from updaterd.exits import ended

pytestmark = pytest.mark.slow


@pytest.fixture
def machine(tmp_path):
    return Machine(
        tmp_path, feed="http://127.0.0.1:9/", repository="http://127.0.0.1:9",
        bootstrap=tmp_path / "root.json",
    )  # fmt: skip


def shell(machine, redirected: str, *words: str, **env: str):
    """Run a command of the machine with its streams redirected by a shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", *cli.command, *words,
         *machine.options],
        capture_output=True, check=False, env=env or None,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing_but_what_is_seen(machine, closed):
    """The database must not get the number of one, nor what is printed."""
    assert 0 == shell(machine, closed, "hold", "--reason", "fair week").returncode
    assert 4 == shell(machine, closed, "status").returncode
    assert 1 == shell(machine, closed, "update", "nothing-of-this-name").returncode

    assert "fair week" == machine.product_status()["hold"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_that_a_terminal_cannot_spell_are_escaped(machine, encoding):
    machine("hold", "--reason", "Messe in Köln ☃")

    # without -I, which would not look at the environment
    done = subprocess.run(
        [sys.executable, "-m", "updaterd", "status", *machine.options],
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": encoding},
    )

    assert 4 == done.returncode, done.stderr.decode()
    assert r"\u2603" in done.stdout.decode(encoding)


def test_mistakes_in_a_configuration_are_told_one_a_line(machine):
    machine.config.write_text("[feed]\nurl = 3\n[trust]\n")

    said = machine("status", expect=1).stderr

    assert "updaterd.toml has 3 mistakes\n  - feed.url must be a string\n" in said


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        # whoever is not root is told to become it, root to look further
        (PermissionError(13, "Permission denied", "/var/lib/x"), "as root"),
        (OSError(30, "Read-only file system", "/var/lib/x"), "writable"),
        (OSError(28, "No space left on device"), "free disk space"),
        (OSError(5, "Input/output error"), "system's log"),
    ],
)
def test_what_the_machine_refuses_comes_with_what_to_do(capsys, error, advice):
    def work() -> int:
        raise error

    assert 1 == ended(work)
    told = capsys.readouterr().err
    assert str(error) in told
    assert advice in told.partition("what to do: ")[2]


@pytest.mark.slow
def test_update_of_nothing_says_so(machine):
    """A product that was taken out, or a file that was not read, looks like this."""
    text = machine.config.read_text()
    machine.config.write_text(text[: text.index("[products")])
    (machine.root / "root.json").write_text("{}")

    assert "no product is configured" in machine("update").stdout
