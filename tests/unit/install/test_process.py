"""Commands run without a shell, in a closed environment, and never for too long."""

import os
import sys
import time

from updaterd.install.process import run


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
