"""`updaterd config check` finds what would only fail at night."""

import pytest

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
