# SPDX-License-Identifier: Apache-2.0
"""Commands run without a shell, in a closed environment, and never for too long."""

import os
import subprocess
import sys
import time

import pytest
from fakes.waiting import eventually

from updaterd.install.process import Output, run

pytestmark = pytest.mark.slow


def python(code: str, **options):
    return run([sys.executable, "-I", "-c", code], timeout_s=20, **options)


def test_exit_code_and_last_words_are_kept():
    ran = python("print('first'); print('last'); raise SystemExit(3)")

    assert (3, "exit code 3: first / last") == (ran.code, str(ran))


def test_output_is_bounded_and_the_flood_does_not_block():
    ran = python("import sys; sys.stdout.write('x' * 5_000_000); print('end')")

    assert 0 == ran.code
    assert ran.tail.endswith("end\n")
    assert len(ran.tail) < 5000


def test_environment_is_closed(monkeypatch):
    """What the daemon was started with does not leak into hooks."""
    monkeypatch.setenv("LD_PRELOAD_FAKE", "evil")
    monkeypatch.setenv("PYTHONPATH", "/evil")

    ran = python("import os; print(sorted(os.environ))", env={"UPDATERD_HOOK": "x"})

    assert "UPDATERD_HOOK" in ran.tail
    assert "LD_PRELOAD_FAKE" not in ran.tail
    assert "PYTHONPATH" not in ran.tail


def test_shell_characters_are_plain_arguments():
    ran = run([sys.executable, "-I", "-c", "import sys; print(sys.argv[1])",
               "$(id); `id` > /tmp/x"], timeout_s=20)  # fmt: skip

    assert "$(id); `id` > /tmp/x" == ran.tail.strip()


def test_when_time_is_up_the_whole_group_dies(tmp_path):
    """Not only the command: what it started too."""
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time;"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(mark)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )

    ran = run([sys.executable, "-I", "-c", code], timeout_s=3)

    assert ran.code is None
    assert "took too long" == str(ran)
    child = int(mark.read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(child):
        os.sched_yield()
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_that_lives_on_is_left_alone_and_not_waited_for():
    """A hook may start a service; it holds our pipe, and we go on."""
    ran = python(
        "import subprocess, sys; print('up', flush=True);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)']);"
        "print(p.pid)"
    )

    assert 0 == ran.code
    pid = int(ran.tail.split()[1])
    assert _alive(pid)
    os.kill(pid, 9)


def test_command_that_is_not_there_says_so():
    ran = run(["/nonexistent/command"], timeout_s=1)

    assert 127 == ran.code
    assert "No such file" in str(ran)


def test_signal_is_named():
    assert "killed by SIGSEGV" == str(python("import os; os.kill(os.getpid(), 11)"))


def test_a_command_of_the_release_leaves_no_byte_code_in_its_tree(tmp_path):
    """A health command in Python may write there: it runs as the tree's owner."""
    (tmp_path / "part.py").write_text("")
    (tmp_path / "check.py").write_text("import part")

    ran = run([sys.executable, str(tmp_path / "check.py")], timeout_s=20)

    assert 0 == ran.code
    assert not (tmp_path / "__pycache__").exists()


class TestWhatAHookStarts:
    """It goes on when the worker is gone, and what it says is heard or dropped."""

    @pytest.fixture
    def started(self, tmp_path):
        """A command that leaves a process which speaks when it is told to."""
        script = tmp_path / "hook"
        script.write_text(
            "#!/bin/sh\n"
            f"cd {tmp_path}\n"
            "( while ! [ -e go ]; do sleep 0.05; done\n"
            "  for word in one two three; do echo $word; done\n"
            "  touch survived ) &\n"
            "echo started it\n"
            'eval "$1"\n'
        )
        script.chmod(0o755)
        yield str(script)
        (tmp_path / "go").touch()

    def worker(self, script, *words, log=subprocess.DEVNULL, journal=False):
        code = (
            "import sys; from updaterd.install.process import Output, run; "
            "print(run(sys.argv[1:], timeout_s=60, output=Output.JOURNAL), flush=True)"
        )
        env = dict(os.environ)
        if journal:
            there = os.fstat(log.fileno())
            env["JOURNAL_STREAM"] = f"{there.st_dev}:{there.st_ino}"
        return subprocess.Popen(
            [sys.executable, "-c", code, script, *words],
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
        )

    def test_it_outlives_the_end_of_the_worker(self, started, tmp_path):
        with self.worker(started) as worker:
            said, _ = worker.communicate(timeout=60)
        assert b"exit code 0: started it" in said

        (tmp_path / "go").touch()

        eventually((tmp_path / "survived").exists)

    def test_it_outlives_a_worker_that_is_killed_in_the_hook(self, started, tmp_path):
        """The pipe must not be the worker's, not even while it is there."""
        with self.worker(started, "touch reached; sleep 2") as worker:
            eventually((tmp_path / "reached").exists)
            worker.kill()

        (tmp_path / "go").touch()

        eventually((tmp_path / "survived").exists)

    def test_journal_hears_all_of_it_as_of_a_service(self, started, tmp_path):
        """Where our own log is the journal; the error still has the last words."""
        with (tmp_path / "journal").open("wb") as journal:
            with self.worker(started, log=journal, journal=True) as worker:
                said, _ = worker.communicate(timeout=60)
            assert b"started it" in said
            (tmp_path / "go").touch()
            eventually((tmp_path / "survived").exists)
        eventually(lambda: "three" in (tmp_path / "journal").read_text())
        assert ["started it", "one", "two", "three"] == (
            (tmp_path / "journal").read_text().split("\n")[:-1]
        )


def test_command_that_says_nothing_has_no_words_after_a_relay():
    assert "exit code 3" == str(python("raise SystemExit(3)", output=Output.LASTING))


def test_what_is_left_running_is_not_waited_for():
    """A service that a hook started holds the output open, for as long as it lives."""
    code = "import subprocess; subprocess.Popen(['sleep', '60']); print('started')"

    ran = python(code, output=Output.LASTING)

    assert (0, "started\n") == (ran.code, ran.tail)
