"""`updaterd config check` finds what would only fail at night."""

import pytest
from fakes.machine import cli

from updaterd.cli import main


@pytest.fixture
def check(tmp_path):
    def _check(feed="", rest=""):
        root = tmp_path / "root.json"
        root.write_text("{}")
        config = tmp_path / "updaterd.toml"
        config.write_text(
            f"[feed]\nurl = 'https://updates.example.com/v1/events'\n{feed}\n"
            f"[trust]\nroot = '{root}'\n"
            f"repository = 'https://updates.example.com/repo'\n{rest}\n"
        )
        where = [f"--{kind}-dir={tmp_path}" for kind in ("state", "cache", "runtime")]
        return main(["config", "check", f"--config={config}", *where])

    return _check


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
