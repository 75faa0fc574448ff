# SPDX-License-Identifier: Apache-2.0
"""What the end of the worker process means: the bundle's fault, or the machine's."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import updaterd
from updaterd.artifact import codecs
from updaterd.artifact.codecs import ZSTD, Packed
from updaterd.artifact.job import Job
from updaterd.artifact.worker import parent
from updaterd.artifact.worker.child import UNHEARD
from updaterd.core.frozen import replaced
from updaterd.errors import MalformedError, RejectedError, TransientError

CONFINED = "printf 'C\\007\\001'"
"""What a worker says when its cage is built."""
FULL = "OSError: [Errno 28] No space left on device: '/proc/self/status'"


@pytest.fixture
def job(tmp_path):
    (tmp_path / "bundle").write_bytes(b"x")
    return Job(
        kind="full",
        codec="zstd",
        bundle=tmp_path / "bundle",
        bundle_sha256="0" * 64,
        bundle_length=1,
        destination=tmp_path,
        files=(),
        tree="0" * 64,
    )


def ends(tmp_path, monkeypatch, *commands):
    """Let what is started as the worker do this instead."""
    stub = tmp_path / "python"
    stub.write_text("\n".join(["#!/bin/sh", "cat >/dev/null", *commands, ""]))
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        ([f'echo "{FULL}" >&2', "exit 1"], "disk_error"),
        (["exit 120"], "disk_error"),  # Python's, when stdout cannot be flushed
        (["kill -KILL $$"], "worker_killed"),
    ],
    ids=["disk full", "no last words", "killed"],
)
def test_trouble_of_the_machine_does_not_count_against_the_release(
    tmp_path, monkeypatch, job, commands, code
):
    """It is tried again; a release that is refused would be blocked here."""
    ends(tmp_path, monkeypatch, *commands)

    with pytest.raises(TransientError) as caught:
        parent.run(job)

    assert code == caught.value.code


@pytest.mark.parametrize("how", ["exit 1", "kill -SEGV $$"])
def test_worker_that_crashes_before_it_opened_a_bundle_is_not_its_doing(
    tmp_path, monkeypatch, job, how
):
    """Nothing of the bundle was looked at: the release must not be blocked for it."""
    ends(tmp_path, monkeypatch, 'echo "ValueError: nonsense" >&2', how)

    with pytest.raises(TransientError) as caught:
        parent.run(job)

    assert "cage_not_built" == caught.value.code
    assert "nonsense" in str(caught.value)


@pytest.mark.parametrize("how", ["SEGV", "ILL", "FPE", "ABRT", "SYS"])
def test_worker_that_crashes_is_the_bundles_doing(tmp_path, monkeypatch, job, how):
    """And what it printed is nobody's to read: only numbers leave the cage."""
    nonsense = 'echo "ValueError: nonsense" >&2'
    ends(tmp_path, monkeypatch, CONFINED, nonsense, f"kill -{how} $$")

    with pytest.raises(RejectedError) as caught:
        parent.run(job)

    assert "worker_crashed" == caught.value.code
    assert "nonsense" not in str(caught.value)


@pytest.mark.parametrize("how", ["exit 1", "exit 75", "exit 120", "kill -TERM $$"])
def test_worker_that_ends_without_an_answer_is_not_the_bundles_doing(
    tmp_path, monkeypatch, job, how
):
    """It could not give one: its pipe or its memory failed, or somebody ended it."""
    ends(tmp_path, monkeypatch, CONFINED, how)

    with pytest.raises(TransientError) as caught:
        parent.run(job)

    assert "no_answer" == caught.value.code


def test_an_old_file_that_cannot_be_read_sends_to_another_bundle(
    tmp_path, monkeypatch, job
):
    """A bad sector, or a cut, under a mapped file ends the worker: not this path's."""
    ends(tmp_path, monkeypatch, CONFINED, "kill -BUS $$")

    with pytest.raises(RejectedError) as caught:
        parent.run(replaced(job, old=tmp_path))

    assert "bad_old_files" == caught.value.code


@pytest.mark.parametrize("said", ["true", CONFINED], ids=["before its cage", "in it"])
def test_a_bus_error_without_old_files_is_the_disks(tmp_path, monkeypatch, job, said):
    """Nothing of an old tree was mapped: its own program could not be read."""
    ends(tmp_path, monkeypatch, said, "kill -BUS $$")

    with pytest.raises(TransientError) as caught:
        parent.run(job)

    assert "disk_error" == caught.value.code


@pytest.mark.parametrize("pause", ["", "sleep 0.01"], ids=["a flood", "now and then"])
def test_a_worker_that_only_tells_of_progress_is_ended(
    tmp_path, monkeypatch, job, pause
):
    """Each word of it would begin another ten minutes of patience."""
    word = "printf 'P" + 16 * "\\000" + "'"
    ends(tmp_path, monkeypatch, CONFINED, f"while :; do {word}; {pause or ':'}; done")
    patience = parent.Patience(silence_s=60, total_s=0.3)

    with pytest.raises(TransientError) as caught:
        parent.ask(job, within=patience)

    assert "worker_silent" == caught.value.code


def test_an_answer_that_nobody_hears_is_told_by_the_exit_code(job):
    """The disk behind its pipe failed, or its parent is gone."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            parent.command(), input=parent.plain(job), stdout=write, check=False
        )
    finally:
        os.close(write)

    assert UNHEARD == done.returncode


def test_memory_is_told_on_a_kernel_that_does_not_say_how_much_there_was(job):
    """Without VmHWM in /proc/self/status there is an answer nevertheless."""
    argv = parent.command()
    place = argv.index("-c") + 1
    start, leave = argv[place].rsplit("; ", 1)
    other = (
        "real = child.os.pread; child.os.pread = "
        "lambda *given: real(*given).replace(b'VmHWM:', b'Other:')"
    )
    argv[place] = f"{start}; {other}; {leave}"

    answer = parent.ask(job, argv=argv)

    assert (0, 0) == (answer.code, answer.end.used.peak_rss)
    assert "hash_mismatch" == answer.end.code


def test_a_machine_that_lost_a_decoder_does_not_blame_the_bundle(job):
    """The manifest names the compression, and this Python had it when it was asked."""
    argv = parent.command()
    place = argv.index("-c") + 1
    start, leave = argv[place].rsplit("; ", 1)
    argv[place] = f"{start}; import sys; sys.modules['lzma'] = None; {leave}"

    with pytest.raises(TransientError) as caught:
        parent.run(replaced(job, codec="full1+xz"), argv=argv)

    assert "lzma" in str(caught.value) or "xz" in str(caught.value)


@pytest.mark.slow
def test_a_worker_that_computes_without_end_is_told_from_one_that_was_killed():
    """Else a bundle that takes too long would be tried again and again."""
    code = (
        "from updaterd.artifact.worker.limits import give_up\n"
        "give_up(memory=2**28, cpu_s=1, file_bytes=0)\n"
        "while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert -signal.SIGXCPU == done.returncode


def test_a_worker_without_zstd_says_so(monkeypatch):
    """As where the package's compiled part is for another Python."""
    for name in ("_zstd", "backports.zstd._zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MalformedError) as caught:
        codecs.Stream(0, Packed(ZSTD, 5, 9, 0), "a stream")
    assert "unknown_codec" == caught.value.code


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept", ["sys.pycache_prefix = {cache!r}", "sys.dont_write_bytecode = True"]
)
def test_what_opens_bundles_leaves_no_byte_code_in_its_release(tmp_path, job, kept):
    """
    A release is closed: a file more, and `verify` calls it damaged and `rollback`
    refuses it. The bundle opener starts without `site`, so that it must
    be told where its parent keeps byte code, or that it keeps none.
    """
    release, cache = tmp_path / "release", tmp_path / "cache"
    shutil.copytree(
        Path(updaterd.__file__).parent,
        release / "updaterd",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    code = (
        f"import sys; {kept.format(cache=str(cache))};"
        f"sys.path.insert(0, {str(release)!r});"
        "import subprocess; from updaterd.artifact.worker import parent;"
        f"job = {parent.plain(job)!r};"
        "done = subprocess.run(parent.command(), input=job, stdout=-1);"
        "from updaterd.artifact.worker import answers; reader = answers.Reader();"
        "reader.feed(done.stdout); print(reader.end.code)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert "hash_mismatch" in done.stdout
    assert [] == list(release.rglob("__pycache__"))
    # with a place for it, the next one need not compile anew
    compiled = list(cache.rglob("child.*.pyc"))
    assert bool(compiled) == ("prefix" in kept)
