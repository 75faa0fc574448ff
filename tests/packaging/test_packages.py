# SPDX-License-Identifier: Apache-2.0
"""The .deb files: self-contained, reproducible, and as Debian wants them."""

import hashlib
import json
import os
import re
import subprocess
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import packages
from fakes.tools import need, refuse
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built():
    return packages.built()


PAPERS = "/usr/share/doc/updaterd"


def deb(folder, name):
    (found,) = folder.glob(f"{name}_*.deb")
    return found


def listing(path):
    need("dpkg-deb", "dpkg")
    shown = subprocess.run(
        ["dpkg-deb", "-c", path], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 5) for line in shown.splitlines()]
    return {row[5].partition(" -> ")[0].lstrip("."): row for row in rows}


@pytest.mark.parametrize("name", ["updaterd", "updaterd-feed"])
def test_lintian_has_nothing_to_say(built, name):
    """Beyond the overrides, each of which carries its argument."""
    tool = need("lintian")
    done = subprocess.run(
        [
            *(tool, "--fail-on=error,warning,info", "--allow-root"),
            str(deb(built, name)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stdout), done.stdout


def test_the_daemons_package_has_what_it_needs_and_no_more(built):
    """All the Pythons side by side; no server, no console, no tests, no secrets."""
    files = listing(deb(built, "updaterd"))
    site = "/usr/lib/updaterd/site"
    for python in ("311", "312", "313", "314"):
        assert any(f"{site}/bsdiff4/core.cpython-{python}-" in name for name in files)
    for unwanted in ("uvicorn", "starlette", "uvloop", "rich", "pip", "setuptools"):
        assert not any(name.startswith(f"{site}/{unwanted}/") for name in files)
    assert not any("/tests/" in name or "__pycache__" in name for name in files)
    for wanted in (
        *("/usr/bin/updaterd", "/usr/lib/updaterd/guard"),
        *("/usr/lib/systemd/system/updaterd.service", "/etc/updaterd/updaterd.toml"),
        *("/usr/share/man/man1/updaterd.1.gz", "/usr/share/man/man1/updaterd-run.1.gz"),
        *("/usr/lib/sysusers.d/updaterd.conf", "/usr/lib/tmpfiles.d/updaterd.conf"),
        "/usr/share/bash-completion/completions/updaterd",
        *("/usr/share/man/man5/updaterd.toml.5.gz", f"{PAPERS}/sbom.cdx.json"),
        *(
            f"{PAPERS}/{p.relative_to(REPO / 'docs')}"
            for p in REPO.glob("docs/**/*.md")
        ),
        *(f"{PAPERS}/{name}" for name in ("README.md", "SECURITY.md")),
    ):
        assert wanted in files
    for row in files.values():
        assert "root/root" == row[1]
        assert "s" not in row[0], "a set-user-id file"
        assert row[0][8] != "w" or row[0].startswith("l"), "a file all may write"


def test_the_compiled_module_is_in_it_hardened_and_stripped(built, tmp_path):
    """Its own: bound at start, no search path, no table of symbols, no newer libc."""
    readelf, tool = need("readelf", "binutils"), need("dpkg-deb", "dpkg")
    subprocess.run([tool, "-x", deb(built, "updaterd"), tmp_path], check=True)
    module = tmp_path / "usr/lib/updaterd/site/updaterd/artifact/_native.abi3.so"
    shown = subprocess.run(
        [readelf, "--wide", "--dynamic", "--segments", "--sections", module],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for wanted in ("BIND_NOW", "GNU_RELRO", "[libc.so.6]"):
        assert wanted in shown
    for unwanted in ("RPATH", "RUNPATH", "RWE", ".symtab", ".debug", "libpython"):
        assert unwanted not in shown


COMPLETE = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_updaterd
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sta"], "status"),
        (["release", "pus"], "push"),
        (["release", "push", "--perm"], "--permille"),
        (["release", "keys", "rot"], "rotate"),
    ],
)
def test_the_completions_know_the_commands(built, tmp_path, typed, offered):
    """Each command, below each command, and its options."""
    tool = need("dpkg-deb")
    subprocess.run([tool, "-x", deb(built, "updaterd"), tmp_path], check=True)
    found = tmp_path / "usr/share/bash-completion/completions/updaterd"
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", found, "updaterd", *typed],
        capture_output=True,
        text=True,
        check=True,
    )
    assert offered == done.stdout.strip()


def test_the_same_commit_gives_the_same_bytes(built, tmp_path):
    """Whoever rebuilds can compare; nobody has to trust the builder."""
    if os.environ.get("UPDATERD_BUILT"):
        pytest.skip("comparing needs the packages as built, not UPDATERD_BUILT")
    again = packages.build(tmp_path, kinds="")
    for name in ("updaterd", "updaterd-feed"):
        first, second = (
            hashlib.sha256(deb(folder, name).read_bytes()).hexdigest()
            for folder in (built, again)
        )
        assert first == second, name


# the first Python that each distribution came with
EARLIEST = {"3.11": "3.11.0", "3.12": "3.12.0", "3.13": "3.13.0", "3.14": "3.14.0"}


def metadata(folder, to, names=("updaterd", "updaterd-feed")):
    """Return name, version and requirements of every distribution in the packages."""
    found = {}
    for name in names:
        subprocess.run(["dpkg-deb", "-x", deb(folder, name), to], check=True)
    for path in to.rglob("*.dist-info/METADATA"):
        head = HeaderParser().parsestr(path.read_text(encoding="utf-8"))
        wants = [Requirement(line) for line in head.get_all("Requires-Dist", [])]
        found[canonicalize_name(head["Name"])] = (head["Version"], wants)
    return found


@pytest.mark.parametrize("python", EARLIEST)
def test_all_that_the_wheels_ask_for_is_in_the_packages(built, tmp_path, python):
    """
    Asked with the first patch of each Python: Debian 12 has 3.11.2, and there redis
    wants a package that 3.11.3 made unnecessary.
    """
    machine = {
        "python_version": python,
        "python_full_version": EARLIEST[python],
        "implementation_version": EARLIEST[python],
        "extra": "",
    }
    here = metadata(built, tmp_path)
    for name, (_, wants) in here.items():
        for want in wants:
            if want.marker is not None and not want.marker.evaluate(machine):
                continue
            other = canonicalize_name(want.name)
            assert other in here, f"{name} on Python {python} wants {want}"
            assert want.specifier.contains(here[other][0], prereleases=True)


def test_the_rpm_has_the_same_files(built):
    """What rpm reads of it: the deb's files, but for Debian's own papers."""
    tool = need("rpm")
    for name in ("updaterd", "updaterd-feed"):
        (package,) = built.glob(f"{name}-[0-9]*.rpm")
        done = subprocess.run(
            [tool, "--query", "--list", "--package", package],
            capture_output=True,
            text=True,
            check=True,
        )
        files = {path for path in listing(deb(built, name)) if not path.endswith("/")}
        assert files <= set(done.stdout.splitlines())


def bill(folder, name, to):
    """Return a package's bill of materials: the one in it is the one beside it."""
    subprocess.run(["dpkg-deb", "-x", deb(folder, name), to], check=True)
    inside = (to / f"usr/share/doc/{name}/sbom.cdx.json").read_text()
    (beside,) = folder.glob(f"{name}_*.cdx.json")
    assert inside == beside.read_text()
    return inside


@pytest.mark.parametrize("name", ["updaterd", "updaterd-feed"])
def test_the_bill_of_materials_is_what_cyclonedx_defines(built, tmp_path, name):
    """By the schema of its version, and each reference in it leads somewhere."""
    if find_spec("cyclonedx") is None:
        refuse("no cyclonedx: pip install -e '.[dev]'")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = bill(built, name, tmp_path)
    document = json.loads(text)
    refs = {component["bom-ref"] for component in document["components"]}
    refs.add(document["metadata"]["component"]["bom-ref"])
    edges = document["dependencies"]
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)

    assert fault is None, str(fault.data)[:500]
    assert {edge["ref"] for edge in edges} == refs
    assert {ref for edge in edges for ref in edge["dependsOn"]} <= refs


@pytest.mark.parametrize("name", ["updaterd", "updaterd-feed"])
def test_the_bill_of_materials_names_what_is_in_the_package(built, tmp_path, name):
    """Each distribution with version and licence, from wheels that the lock pins."""
    components = json.loads(bill(built, name, tmp_path))["components"]
    lock = (REPO / "packaging/requirements.lock").read_text()
    pinned = set(re.findall("sha256:([0-9a-f]{64})", lock))
    shipped = {
        (distribution, version)
        for distribution, (version, _) in metadata(built, tmp_path, [name]).items()
    }

    assert shipped == {(canonicalize_name(c["name"]), c["version"]) for c in components}
    for component in components:
        assert component["licenses"], component["name"]
        sources = component["externalReferences"]
        hashes = {entry["content"] for ref in sources for entry in ref["hashes"]}
        assert sources
        assert hashes <= pinned or component["name"] == "updaterd", component["name"]


def test_the_bill_of_materials_names_what_is_compiled_in(built, tmp_path):
    """OpenSSL, of which advisories speak, is in no file of its own."""
    components = json.loads(bill(built, "updaterd", tmp_path))["components"]
    (parent,) = (c for c in components if c["name"] == "cryptography")

    assert "openssl" in {part["name"] for part in parent["components"]}
