# SPDX-License-Identifier: Apache-2.0
"""`updaterd config check` finds what would only fail at night."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fakes.machine import cli
from fakes.origin import Origin
from fakes.repository import Publisher
from fakes.tools import need_root

from updaterd.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory):
    return Publisher(tmp_path_factory.mktemp("ops") / "ops").bootstrap


@pytest.fixture
def check(tmp_path, bootstrap):
    (tmp_path / "root.json").write_bytes(bootstrap)
    return Check(tmp_path)


class Check:
    """A configuration below a folder, and what `config check` says of it."""

    def __init__(self, folder):
        self.folder = folder
        self.feed = "https://updates.example.com/v1/events"
        self.repository = "https://updates.example.com/repo"

    def __call__(self, *words, feed="", rest="", online=False):
        config = self.folder / "updaterd.toml"
        config.write_text(
            f"[feed]\nurl = '{self.feed}'\n{feed}\n"
            f"[trust]\nroot = '{self.folder}/root.json'\n"
            f"repository = '{self.repository}'\n{rest}\n"
        )
        where = [
            f"--{kind}-dir={self.folder}" for kind in ("state", "cache", "runtime")
        ]
        network = [] if online else ["--offline"]
        options = ["--demo", f"--config={config}", *where, *network, *words]
        return main(["config", "check", *options])

    def product(self, more=""):
        root = self.folder / "opt/acme"
        root.mkdir(parents=True, exist_ok=True)
        return f"[products.acme]\nroot = '{root}'\n{more}\n"


def test_zone_that_this_machine_does_not_know(check, capsys):
    assert 1 == check(rest="[schedule]\nwindow = '01:00-05:00 Europe/Berlinn'")
    assert "Europe/Berlinn" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["ca_file", "headers_file"])
def test_file_that_is_not_there(check, capsys, key):
    assert 1 == check(feed=f"{key} = '/nonexistent/file'")
    assert f"feed.{key}" in capsys.readouterr().err


def test_configuration_without_products_is_told(check, capsys):
    assert 0 == check()
    assert "no product" in capsys.readouterr().out


def test_the_layers_of_the_cage_are_told(check, capsys):
    """What this kernel lacks is a warning: it is no mistake of the configuration."""
    assert 0 == check("--json")
    cage = json.loads(capsys.readouterr().out)["cage"]
    assert 0 == check()
    out = capsys.readouterr().out

    assert f"  cage        {cage['layers']}\n" in out
    assert all(f"  warning: {what}\n" in out for what in cage["missing"])


def test_address_that_cannot_be_used_is_named_with_its_key(tmp_path, check, capsys):
    assert 1 == check(feed="", rest="mirrors = ['ftp://mirror.example.com/']")
    assert "trust.mirrors: 'ftp://mirror.example.com" in capsys.readouterr().err


@pytest.mark.parametrize("table", ["feed", "trust"])
def test_a_proxy_without_a_scheme_is_told_as_that(check, capsys, table):
    """Not as a package that is missing."""
    proxy = "proxy = '127.0.0.1:3128'"
    assert 1 == check(**{"feed" if table == "feed" else "rest": proxy})
    told = capsys.readouterr().err
    assert f"{table}.proxy has no scheme" in told
    assert "socks" not in told.partition("socks5://")[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_PROXY", "localhost,<local>"), ("all_proxy", "socks://127.0.0.2:9/")],
)
def test_a_proxy_variable_that_makes_no_sense_is_named(
    check, capsys, monkeypatch, name, value
):
    """It is left out, so the configuration is good."""
    monkeypatch.setenv(name, value)
    assert 0 == check()
    assert f"{name}" in capsys.readouterr().out


def test_grant_for_a_user_that_does_not_exist_writes_nothing(tmp_path):
    """An instance whose user was forgotten: what is missing, and how to make it."""
    path = tmp_path / "updaterd.toml"
    path.write_text(
        '[feed]\nurl = "https://f.example/"\n[trust]\nroot = "/r.json"\n'
        'repository = "https://r.example/"\n[products.acme]\nroot = "/opt/acme"\n'
    )
    done = cli(
        *("config", "grant", "--write", "--config", path),
        *("--unit", "updaterd@nobodyhere.service"),
        expect=None,
    )
    assert 0 != done.returncode
    assert "no user 'updaterd-nobodyhere'" in done.stderr
    assert "systemd-sysusers" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrote" not in done.stdout


class TestTheFirstRoot:
    """Without it nothing can be verified: every machine needs the right one."""

    @pytest.mark.parametrize("text", ["{}", "", "<html>", '{"signed": {}}'])
    def test_what_is_no_root_is_not_good(self, check, capsys, text):
        (check.folder / "root.json").write_text(text)

        assert 1 == check()
        assert (
            "trust.root: the bootstrap root cannot be used" in capsys.readouterr().err
        )

    def test_root_that_its_own_keys_did_not_sign_is_not_good(
        self, check, bootstrap, capsys
    ):
        document = json.loads(bootstrap)
        document["signed"]["version"] += 1
        (check.folder / "root.json").write_text(json.dumps(document))

        assert 1 == check("--settings")
        assert "trust.root" in capsys.readouterr().err

    def test_other_metadata_is_not_good(self, tmp_path, check, bootstrap):
        publisher = Publisher(tmp_path / "ops")
        timestamp = publisher.public / "metadata/timestamp.json"
        (check.folder / "root.json").write_bytes(timestamp.read_bytes())

        assert 1 == check()


@pytest.fixture
def open_folder():
    """A folder that everybody may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class TestAsTheDaemonsUser:
    """What root may read and write says nothing."""

    @pytest.fixture
    def check(self, open_folder, bootstrap):
        need_root()
        (open_folder / "root.json").write_bytes(bootstrap)
        (open_folder / "root.json").chmod(0o644)
        os.chown(open_folder, 65534, 65534)
        return Check(open_folder)

    def test_root_that_only_root_can_read(self, check, capsys):
        assert 0 == check("--user=nobody")
        (check.folder / "root.json").chmod(0o600)

        assert 1 == check("--user=nobody")
        told = capsys.readouterr().err
        assert "for the user nobody" in told
        assert f"trust.root: cannot read {check.folder}/root.json: Permission" in told

    def test_configuration_that_only_root_can_read(self, check, capsys):
        check("--user=nobody")
        (check.folder / "updaterd.toml").chmod(0o600)
        os.chown(check.folder / "updaterd.toml", 0, 0)

        assert 1 == check("--user=nobody")
        assert "cannot read" in capsys.readouterr().err

    def test_product_that_was_never_granted(self, check, capsys):
        rest = check.product()
        assert 0 == check(rest=rest)

        assert 1 == check("--user=nobody", rest=rest)
        told = capsys.readouterr().err
        assert "products.acme.root" in told
        assert "config grant --write" in told

    def test_user_that_is_not_there(self, check, capsys):
        assert 1 == check("--user=nobody-of-this-name")
        assert "'nobody-of-this-name' does not exist" in capsys.readouterr().err


class TestCommands:
    @pytest.mark.parametrize("key", ["health = {command", "hooks = {pre_stage"])
    def test_command_that_is_not_there(self, check, capsys, key):
        rest = check.product(f"{key} = ['/usr/bin/no-such-check']}}")

        assert 1 == check(rest=rest)
        assert "/usr/bin/no-such-check is not there" in capsys.readouterr().err

    def test_command_without_the_right_to_run(self, check, tmp_path, capsys):
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\n")
        rest = check.product(f"health = {{command = ['{script}']}}")

        assert 1 == check(rest=rest)
        assert "cannot be run" in capsys.readouterr().err

    def test_command_that_comes_with_the_first_release_is_a_note(self, check, capsys):
        path = f"{check.folder}/opt/acme/current/bin/healthcheck"
        rest = check.product(f"health = {{command = ['{path}']}}")

        assert 0 == check(rest=rest)
        assert "comes with the first release" in capsys.readouterr().out


class TestUnits:
    """Asked of systemd, which is asked to restart nothing."""

    @pytest.fixture
    def systemd(self, tmp_path, monkeypatch):
        def says(state, restart, code=1):
            tool = tmp_path / "systemctl"
            tool.write_text(
                f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
                f'case "$*" in *show*) echo LoadState={state};; '
                f'*) echo "{restart}" >&2; exit {code};; esac\n'
            )
            tool.chmod(0o755)
            monkeypatch.setenv("UPDATERD_SYSTEMCTL", str(tool))

        return says

    def test_unit_that_does_not_exist(self, check, systemd, capsys):
        systemd("not-found", "unused")

        assert 1 == check(rest=check.product("units = ['acme.service']"))
        assert "acme.service cannot be restarted: systemd says not-found" in (
            capsys.readouterr().err
        )

    def test_missing_grant_is_told_with_its_cure(self, check, systemd, capsys):
        systemd("loaded", "Failed to restart: Interactive authentication required.")

        assert 1 == check(rest=check.product("units = ['acme.service']"))
        assert "updaterd config grant --write" in capsys.readouterr().err

    def test_grant_is_found_and_nothing_restarted(self, check, systemd, tmp_path):
        systemd("loaded", "Failed to restart acme: Isolate is only valid for start.")

        assert 0 == check(rest=check.product("units = ['acme.service']"))
        asked = (tmp_path / "asked").read_text().splitlines()
        verbs = [line for line in asked if " show " not in f" {line} "]
        assert verbs
        assert all("--job-mode=isolate restart" in line for line in verbs)

    def test_systemd_that_does_not_answer(self, check, monkeypatch, capsys):
        monkeypatch.setenv("UPDATERD_SYSTEMCTL", "/nonexistent/systemctl")

        assert 1 == check(rest=check.product("units = ['acme.service']"))
        assert "acme.service cannot be restarted" in capsys.readouterr().err

    def test_root_that_the_daemons_unit_may_not_write(
        self, check, monkeypatch, tmp_path, capsys
    ):
        """A product that came after the last `config grant`."""
        tool = tmp_path / "systemctl"
        tool.write_text(
            "#!/bin/sh\nprintf 'LoadState=loaded\\nUser=root\\nProtectSystem=strict\\n"
            "ReadWritePaths=-/opt/other\\n'\n"
        )
        tool.chmod(0o755)
        monkeypatch.setenv("UPDATERD_SYSTEMCTL", str(tool))

        assert 1 == check("--unit=updaterd.service", rest=check.product())
        told = capsys.readouterr().err
        assert "read-only for the daemon's unit" in told


class TestServers:
    def test_address_that_nobody_answers(self, check, capsys):
        check.feed = "http://127.0.0.1:9/v1/events"
        check.repository = "http://127.0.0.1:9/repo"

        assert 0 == check()
        assert 1 == check(online=True)
        told = capsys.readouterr().err
        assert "feed.url: " in told
        assert "trust.repository: " in told

    def test_what_answers_and_is_neither(self, check, tmp_path, capsys):
        """A web server, or a captive portal."""
        (tmp_path / "www").mkdir()
        with Origin(tmp_path / "www") as origin:
            check.feed = check.repository = origin.url

            assert 1 == check("--json", online=True)

        found = json.loads(capsys.readouterr().out)["findings"]
        assert ["feed.url", "trust.repository"] == [
            one["what"].partition(":")[0] for one in found
        ]
        assert all(one["code"] and one["what"] for one in found)
