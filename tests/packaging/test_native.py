# SPDX-License-Identifier: Apache-2.0
"""The compiled module: in CI it is there; without a compiler all goes on without it."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from fakes.tools import need, refuse

REPO = Path(__file__).parents[2]
NATIVE = "updaterd/artifact/_native.abi3.so"
PURE = """
import sys
sys.path.insert(0, sys.argv[1])
import updaterd.artifact.worker.child, updaterd.pipeline.update
assert updaterd.__file__.startswith(sys.argv[1]), updaterd.__file__
try:
    import updaterd.artifact._native
except ImportError:
    print("without it")
"""


def copy_source(source: Path) -> None:
    """Copy what a wheel is made of: building leaves files beside it."""
    source.mkdir(parents=True)
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    shutil.copytree(
        REPO / "updaterd",
        source / "updaterd",
        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
    )


def wheel(folder: Path, compiler: str) -> tuple[Path, str]:
    """Build the wheel as pip would; return it and what was said."""
    source = folder / "source"
    copy_source(source)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", folder, source),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CC": compiler},
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found, done.stdout + done.stderr


def test_what_is_tested_has_the_module():
    """No skip in CI: it would test the half that no package ships."""
    if find_spec("updaterd.artifact._native") is None:
        refuse("no compiled module: pip install -e . with gcc and python3-dev")
    import updaterd.artifact._native

    assert updaterd.artifact._native.__file__.endswith(".abi3.so")


def test_the_wheel_has_every_module_and_no_sources_of_c(tmp_path):
    """One wheel for every Python from 3.11, and nothing that an earlier build left."""
    built, said = wheel(tmp_path, need("gcc"))
    with zipfile.ZipFile(built) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(p.relative_to(REPO)) for p in (REPO / "updaterd").rglob("*.py")}
    others = {"updaterd/py.typed", "updaterd/artifact/_native.pyi", NATIVE}
    others |= {str(p.relative_to(REPO)) for p in (REPO / "updaterd").rglob("*.json")}
    console = REPO / "updaterd" / "server" / "console"
    pages = (*console.glob("static/*"), *console.glob("templates/*"))
    others |= {str(p.relative_to(REPO)) for p in pages}

    assert names == modules | others, said
    assert "-cp311-abi3-" in built.name


def test_without_a_compiler_the_wheel_is_for_any_machine(tmp_path):
    """Installation succeeds, says in one line what is missing, and the worker loads."""
    built, said = wheel(tmp_path, "/bin/false")
    warnings = re.findall(r"built without its compiled module", said)
    to = tmp_path / "installed"
    shutil.unpack_archive(built, to, "zip")
    done = subprocess.run(
        [sys.executable, "-I", "-c", PURE, to],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "-py3-none-any" in built.name
    assert 1 == len(warnings), said
    assert (0, "without it\n") == (done.returncode, done.stdout), done.stderr


def test_the_packages_are_not_built_without_a_compiler(tmp_path):
    """They would be slower on every machine, and nobody would know."""
    gcc = tmp_path / "bin/gcc"
    gcc.parent.mkdir()
    gcc.symlink_to("/bin/false")
    done = subprocess.run(
        [sys.executable, REPO / "packaging/build.py", "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{gcc.parent}:{os.environ['PATH']}"},
    )

    assert 1 == done.returncode, done.stdout
    assert f"no {NATIVE}: it needs gcc and Python's headers" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_source_archive_has_what_is_compiled(tmp_path):
    """A header left out, and whoever installs from it would be without the module."""
    source = tmp_path / "source"
    copy_source(source)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", tmp_path],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}

    native = REPO / "updaterd/artifact/native"
    assert {str(p.relative_to(REPO)) for p in native.iterdir()} <= names
    assert {"setup.py", "MANIFEST.in", "LICENSE", "updaterd/py.typed"} <= names
