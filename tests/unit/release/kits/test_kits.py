# SPDX-License-Identifier: Apache-2.0
"""A kit: what is in it, that it is the same each time, and what it refuses to run."""

import io
import os
import subprocess
import tarfile
import tomllib

import pytest
from fakes.kits import KIT, home_in, install, publisher
from fakes.origin import Origin
from fakes.tools import need

from updaterd.release.kits import contents, deb, description, filling, making


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return publisher(tmp_path_factory.mktemp("publisher"))


def describe(folder, text=None, product="acme"):
    path = folder / "kit.toml"
    if text is not None:
        path = folder / "other.toml"
        path.write_text(text)
    return description.describe(path, product, b'{"signed": "a root"}')


def make(folder, out, forms=("deb", "sh"), carried=None):
    return making.write(
        describe(folder),
        out,
        forms=forms,
        carried=carried or {},
        platform="linux-x86_64",
    )


@pytest.mark.parametrize("carried", [{}, {"metadata/timestamp.json": b"{}"}])
def test_the_same_input_gives_the_same_bytes(folder, tmp_path, carried):
    made = [make(folder, tmp_path / name, carried=carried) for name in ("a", "b")]

    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]


def test_the_configuration_in_a_package_says_what_the_file_said(folder):
    files = contents.of_machine(describe(folder), {})

    text = files["usr/lib/updaterd-acme/conf.d/50-acme.toml"].data.decode()
    written, meant = tomllib.loads(text), tomllib.loads(KIT)
    del meant["kit"], meant["updaterd"]
    meant["trust"]["root"] = "/usr/lib/updaterd-acme/root.json"
    command = ["/opt/acme/current/bin/check", "\"'ä"]
    meant["products"]["acme"]["health"]["command"] = command
    assert meant == written
    unit = files["usr/lib/systemd/system/acme.service"].data.decode()
    assert "ExecStart=/opt/acme/current/bin/acme" in unit
    assert "WantedBy=multi-user.target" in unit


def test_debians_own_tool_reads_the_package(folder, tmp_path):
    tool = need("dpkg-deb", "dpkg")
    (path, *_) = make(folder, tmp_path, forms=("deb",))
    asked = ("Package", "Version", "Architecture", "Depends")

    fields = [
        subprocess.run(
            [tool, "--field", path, name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in asked
    ]
    subprocess.run([tool, "--raw-extract", path, tmp_path / "out"], check=True)

    assert ["acme-setup", "1.0", "all"] == fields[:3]
    assert fields[3].endswith(", polkitd | policykit-1")
    script = tmp_path / "out/DEBIAN/postinst"
    assert os.access(script, os.X_OK)
    assert (tmp_path / "out/usr/lib/updaterd-acme/root.json").exists()


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("/opt/acme", "opt/acme", "must be an absolute path"),
        ("[feed]", "[fed]", "feed"),
        ("[products.acme]", "[products.other]", "no other product"),
        ('repository = "', 'root = "/x"\nrepository = "', "without `root`"),
        ('version = "1.0"', 'version = "1 0"', "kit.version"),
        ("Acme Ltd <it@acme.example>", "Acme\\nX: y", "kit.publisher"),
        ("acme.service", "../../etc/passwd\\n", "kit.unit_files"),
        ("_amd64.deb", "_z80.deb", "no package of updaterd"),
        ('version = "1.0"', 'version = "1.0"\nuser_rot = "~/x"', "not a known"),
        ('version = "1.0"', 'version = "1.0"\nuser_root = "/x"', "user_root"),
    ],
)
def test_what_a_machine_would_refuse_makes_no_kit(folder, before, after, why):
    with pytest.raises(description.KitError, match=why):
        describe(folder, KIT.replace(before, after, 1))


def test_a_package_of_before_there_were_kits_makes_no_installer(tmp_path):
    """Its installer would end in the middle, at people who can do nothing about it."""
    folder = tmp_path / "old"
    folder.mkdir()
    publisher(folder)
    path = folder / "updaterd_0.2.0_arm64.deb"
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(description.KitError, match="is no package of an updaterd"):
        make(folder, tmp_path / "kits")
    assert make(folder, tmp_path / "kits", forms=("deb",))


@pytest.mark.parametrize("name", sorted(description.TAKEN))
def test_names_of_updaterds_own_are_refused(folder, name):
    """A kit `feed` would have the feed server's user, who has its keys' folder."""
    with pytest.raises(description.KitError):
        describe(folder, KIT.replace("[products.acme]", f"[products.{name}]"), name)


# -- the installer for a shell


@pytest.fixture
def home(tmp_path):
    return home_in(tmp_path)


def files_in(home):
    return sorted(
        str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()
    )


def of_these(made, name):
    (path,) = (path for path in made if path.name == name)
    return path


@pytest.fixture(scope="module")
def offline(folder, tmp_path_factory):
    carried = {"metadata/timestamp.json": b"{}"}
    made = make(folder, tmp_path_factory.mktemp("kits"), carried=carried)
    return of_these(made, "acme-setup-offline.sh")


def test_a_person_gets_all_of_it_and_loses_all_of_it(offline, home):
    done = install(offline, home, "--user")

    assert (0, "") == (done.returncode, done.stderr)
    assert "kit up acme\n" == (home / "asked").read_text()
    own = home / ".local/share/updaterd-acme"
    written = tomllib.loads((own / "conf.d/50-acme.toml").read_text())
    assert str(home / ".local/opt/acme") == written["products"]["acme"]["root"]
    assert (own / written["trust"]["root"]).exists()
    assert (own / "release/metadata/timestamp.json").exists()
    units = home / ".local/share/systemd/user"
    assert "WantedBy=default.target" in (units / "acme.service").read_text()
    start = f"ExecStart={home}/.local/share/updaterd/runtime/current/bin/python -I -m"
    assert start in (units / "updaterd@.service").read_text()
    assert os.access(home / ".local/bin/updaterd", os.X_OK)

    done = install(offline, home, "--user", "--remove")

    assert (0, "") == (done.returncode, done.stderr)
    assert "kit down --purge acme" in (home / "asked").read_text()
    assert ["asked"] == files_in(home)


def test_a_home_of_any_name_has_a_command_and_units_that_start(offline, tmp_path):
    """As the shell reads the one and systemd the others."""
    home = home_in(tmp_path, "a $HOME %h ü \u2028")
    assert 0 == install(offline, home, "--user").returncode
    (home / "asked").unlink()
    own = home / ".local/share"
    written = tomllib.loads((own / "updaterd-acme/conf.d/50-acme.toml").read_text())
    assert str(home / ".local/opt/acme") == written["products"]["acme"]["root"]
    assert os.path.exists(written["trust"]["root"])

    env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    command = home / ".local/bin/updaterd"
    subprocess.run([command, "status"], env=env, check=True)
    subprocess.run([f"{command}-launch", "acme"], env=env, check=True)
    assert "status\nlaunch acme\n" == (home / "asked").read_text()
    (home / "asked").unlink()  # it is root's
    program = home / ".local/opt/acme/current/bin/acme"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    tool = need("systemd-analyze", "systemd")
    for unit in ("acme.service", "updaterd@.service"):
        copy = tmp_path / unit.replace("@.", "@acme.")
        copy.write_text((own / "systemd/user" / unit).read_text())
        done = subprocess.run(
            [tool, "--user", "verify", "--man=no", "--recursive-errors=no", copy],
            env={**env, "XDG_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("", "") == (done.stdout, done.stderr)

    assert 0 == install(offline, home, "--user", "--remove").returncode
    program.unlink()
    assert ["asked"] == files_in(home)


@pytest.mark.parametrize("name", ["o'd", 'o"d', "o\\d", "o\td", os.fsdecode(b"o\xe9d")])
def test_a_home_in_which_systemd_starts_nothing_is_left_alone(offline, tmp_path, name):
    home = home_in(tmp_path, name)

    done = install(offline, home, "--user")

    assert "systemd starts no program there" in done.stderr
    assert [] == files_in(home)


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("Exec={root}/current/bin/acme %U", 'Exec="/h o/$r/current/bin/acme" %U'),
        ('Exec="{root}/bin/a b" --x', 'Exec="/h o/$r/bin/a b" --x'),
        ("Exec=env A={root}/x acme", 'Exec=env A="/h o/$r/x" acme'),
        ("Exec=updaterd-launch acme a", 'Exec="/h o/launch" acme a'),
        ("Icon={root}/current/icon.png", "Icon=/h o/$r/current/icon.png"),
    ],
)
def test_programs_in_desktop_files_are_quoted_and_nothing_else(line, becomes):
    done = filling.desktop_file(f"{line}\n", root="/h o/$r", launcher="/h o/launch")

    if line.startswith("Exec"):  # `$` is escaped in quotes, and `\\` in each value
        becomes = becomes.replace("$", r"\\$")
    assert f"{becomes}\n" == done


def test_a_kit_that_goes_leaves_what_another_needs(offline, home):
    other = home / ".local/share/updaterd-other"
    assert 0 == install(offline, home, "--user").returncode
    other.mkdir()
    (other / "installed-files").write_text("")

    assert 0 == install(offline, home, "--user", "--remove").returncode

    assert (home / ".local/share/systemd/user/updaterd@.service").exists()
    assert (home / ".local/share/updaterd/runtime/current/bin/python").exists()
    assert not (home / ".local/share/updaterd-acme").exists()


@pytest.mark.parametrize("how", ["cut", "changed", "cut in the program", "piped"])
def test_a_file_that_is_not_whole_does_nothing(offline, home, tmp_path, how):
    data = offline.read_bytes()
    script = tmp_path / "broken.sh"
    script.write_bytes({
        "cut": data[:-1000],
        "changed": data[:-3000] + b"!" + data[-2999:],
        "cut in the program": data[:9000],
        "piped": data,
    }[how])  # fmt: skip
    if how == "piped":
        with script.open("rb") as file:
            done = subprocess.run(
                ["sh"], stdin=file, capture_output=True, text=True, check=False,
                cwd=home, env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
        assert "save this to a file" in done.stderr
    else:
        done = install(script, home, "--user")

    assert done.returncode != 0
    assert [] == files_in(home)


def test_other_bytes_than_were_pinned_are_not_run(folder, home, tmp_path):
    """Whoever serves updaterd's package can change it, and nobody runs that."""
    served = tmp_path / "served"
    with Origin(served) as origin:
        text = KIT.replace("https://updates.acme.example/kits", origin.url)
        kit = describe(folder, text)
        made = making.write(
            kit, served, forms=("sh",), carried={}, platform="linux-x86_64"
        )
        script = of_these(made, "acme-setup.sh")
        assert 0 == install(script, home, "--user").returncode
        assert 0 == install(script, home, "--user", "--remove").returncode
        (home / "asked").unlink()
        for path in served.glob("updaterd_*.deb"):
            path.write_bytes(path.read_bytes()[:-1] + b"!")

        done = install(script, home, "--user")

        assert "is not what its publisher pinned" in done.stderr
        assert [] == files_in(home)


def test_root_and_persons_are_told_apart(offline, home):
    done = install(offline, home)

    assert done.returncode == 1
    assert "must run as root" in done.stderr
    assert [] == files_in(home)


def test_a_tar_lists_each_folder_once():
    raw = deb.tar({"a/b/c": contents.File(b"1"), "a/b/d": contents.File(b"2")}, 7)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        names = archive.getnames()

    assert ["." , "./a", "./a/b", "./a/b/c", "./a/b/d"] == names  # fmt: skip
