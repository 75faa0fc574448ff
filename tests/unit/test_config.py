# SPDX-License-Identifier: Apache-2.0
"""A configuration is understood whole, or refused with every mistake named."""

import pytest

from updaterd import config
from updaterd.config import ConfigError, fragments

GOOD = """
[feed]
url = "https://updates.example.com/v1/events"
headers_file = "/etc/updaterd/feed.headers"
ca_file = "/etc/updaterd/ca.pem"
idle_timeout_s = 45
[trust]
root = "/etc/updaterd/root.json"
repository = "https://updates.example.com/repo/"
[download]
max_rate = "5MiB/s"
min_free = "500MiB"
[schedule]
max_deferral = "7d"
[products.acme]
root = "/opt/acme"
units = ["acme.service"]
health = { command = ["/opt/acme/current/bin/healthcheck"], timeout_s = 60 }
"""


@pytest.fixture
def load(tmp_path):
    def _load(text, **parts):
        path = tmp_path / "updaterd.toml"
        path.write_text(text)
        for name, part in parts.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.toml").write_text(part)
        return config.load(path, state=tmp_path, cache=tmp_path, runtime=tmp_path)

    return _load


def test_units_are_read_as_people_write_them(load):
    settings = load(GOOD)

    assert 5 * 2**20 == settings.download.max_rate
    assert 7 * 86400 == settings.schedule.max_deferral_s
    assert "https://updates.example.com/repo" == settings.trust.repository
    assert ("/opt/acme/current/bin/healthcheck",) == settings.products[
        "acme"
    ].health.command


def test_repository_shares_the_feeds_ca_but_never_its_credentials(load):
    network = load(GOOD).trust.network

    assert "/etc/updaterd/ca.pem" == str(network.ca_file)
    assert network.headers_file is None


def test_later_files_add_products_and_replace_values(load):
    settings = load(
        GOOD,
        a='[products.acme]\nchannel = "beta"\n',
        b='[products.other]\nroot = "/opt/other"\n',
    )

    assert "beta" == settings.products["acme"].channel
    assert ("acme.service",) == settings.products["acme"].units
    assert "/opt/other" == str(settings.products["other"].root)


def test_every_mistake_is_named_at_once_with_a_guess_at_what_was_meant(load):
    with pytest.raises(ConfigError) as caught:
        load(
            GOOD
            .replace("idle_timeout_s = 45", "idle_timout_s = 45")
            .replace('"/opt/acme"', '"opt/acme"')
            .replace('"5MiB/s"', '"fast"')
        )

    told = str(caught.value)
    assert "did you mean 'idle_timeout_s'?" in told
    assert "products.acme.root must be an absolute path" in told
    assert "'fast' is not a rate" in told


@pytest.mark.parametrize(
    "text",
    [
        "[feed",
        "",
        GOOD.replace("[feed]", "[fed]"),
        GOOD + '[products."../x"]\nroot = "/opt/x"\n',
        GOOD + '[products.inner]\nroot = "/opt/acme/inner"\n',
        GOOD.replace('["acme.service"]', '"acme.service"'),
        GOOD.replace("timeout_s = 60 }", 'timeout_s = "soon" }'),
        GOOD.replace("idle_timeout_s = 45", "idle_timeout_s = nan"),
        GOOD.replace("idle_timeout_s = 45", "idle_timeout_s = true"),
        "feed = 1\ntrust = 2\nproducts = 3\n",
    ],
)
def test_unusable_configuration_is_refused_with_its_own_error(load, text):
    with pytest.raises(ConfigError):
        load(text)


def test_missing_and_undecodable_files_say_which_file(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")

    for name in ("absent.toml", "bad.toml"):
        with pytest.raises(ConfigError, match=name):
            config.load(tmp_path / name)


def test_directories_of_systemd_come_before_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/vendor")
    (tmp_path / "updaterd.toml").write_text(GOOD)

    settings = config.load(tmp_path / "updaterd.toml", cache=tmp_path)

    assert "/var/lib/vendor" == str(settings.directories.state)
    assert tmp_path == settings.directories.cache


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ('"/opt/acme"', '""', "products.acme.root is empty"),
        ('"/etc/updaterd/root.json"', '""', "trust.root is empty"),
        ('"https://updates.example.com/repo/"', '" "', "trust.repository is empty"),
    ],
)
def test_empty_is_not_a_place(load, old, new, mistake):
    """A template that was not filled in would stand for `/`."""
    with pytest.raises(ConfigError, match=mistake):
        load(GOOD.replace(old, new))


@pytest.mark.parametrize("other", ["acme", "acme/sub", "x/../acme", "link", "link/sub"])
def test_two_products_in_one_tree_are_refused_by_whatever_name(load, tmp_path, other):
    """They would prune each other's releases."""
    (tmp_path / "link").symlink_to(tmp_path / "acme")

    with pytest.raises(ConfigError, match="share"):
        load(
            GOOD.replace("/opt/acme", f"{tmp_path}/acme"),
            b=f'[products.other]\nroot = "{tmp_path}/{other}"\n',
        )


def test_a_required_attestation_is_whole_or_a_mistake(load):
    """Half of it would require nothing, and look as if it did."""
    whole = 'require_attestation = {predicate_type = "a:b", key = "/etc/key.pem"}\n'

    required = load(GOOD + whole).products["acme"].require_attestation

    assert (required.predicate_type, str(required.key)) == ("a:b", "/etc/key.pem")
    assert load(GOOD).products["acme"].require_attestation is None
    for half in ("{}", '{key = "/k"}', '{predicate_type = "a:b"}', '"slsa"', "false"):
        with pytest.raises(ConfigError, match="require_attestation"):
            load(f"{GOOD}require_attestation = {half}\n")


@pytest.fixture
def machine(tmp_path):
    """A machine with the folders of a package, of `/run` and of its owner."""

    class Machine:
        vendor, run, own = (tmp_path / name for name in ("usr", "run", "etc/conf.d"))
        file = tmp_path / "etc/updaterd.toml"

        def write(self, folder, name, text):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.toml").write_text(text)
            return folder / f"{name}.toml"

        def read(self):
            self.file.parent.mkdir(exist_ok=True)
            found = fragments.find(self.file, (self.vendor, self.run))
            return found, fragments.merge(found)

    return Machine()


def test_the_owners_word_counts_more_than_a_packages(machine):
    """/usr/lib < /run < updaterd.toml < conf.d, whatever the names of the files."""
    weakest = machine.write(machine.vendor, "99", "a = 1\nb = 1\nc = 1\nd = 1\n")
    machine.write(machine.run, "50", "b = 2\nc = 2\nd = 2\n")
    machine.file.parent.mkdir()
    machine.file.write_text("c = 3\nd = 3\n")
    strongest = machine.write(machine.own, "00", "d = 4\n")

    _, merged = machine.read()

    assert {"a": 1, "b": 2, "c": 3, "d": 4} == merged.values
    assert weakest == merged.origin("a")
    assert machine.file == merged.origin("c")
    assert strongest == merged.origin("d")


@pytest.mark.parametrize("how", ["other", "empty", "nothing"])
def test_a_fragment_stands_for_a_weaker_one_of_its_name_whole(machine, how):
    machine.write(machine.vendor, "acme", "[products.acme]\nroot = '/opt/acme'\n")
    machine.write(machine.vendor, "other", "x = 1\n")
    if how == "nothing":
        machine.own.mkdir(parents=True)
        (machine.own / "acme.toml").symlink_to("/dev/null")
    else:
        machine.write(machine.own, "acme", "y = 1\n" if how == "other" else "")

    found, merged = machine.read()

    assert ({"x": 1, "y": 1} if how == "other" else {"x": 1}) == merged.values
    stands = {machine.vendor / "acme.toml": machine.own / "acme.toml"}
    assert stands == found.replaced


def test_two_packages_do_not_overrule_each_other(machine):
    """Else a second vendor would say whose signatures the first one's product needs."""
    machine.write(machine.vendor, "acme", "[trust]\nroot = '/a'\n[feed]\nurl = 'u'\n")
    machine.write(machine.vendor, "evil", "[trust]\nroot = '/e'\n[feed]\nurl = 'u'\n")

    with pytest.raises(ConfigError, match=r"evil.toml and .*acme.toml .* trust\.root"):
        machine.read()
    machine.write(machine.vendor, "evil", "trust = 1\n")
    with pytest.raises(ConfigError, match=r"say different things of trust"):
        machine.read()
    machine.write(machine.own, "evil", "")
    assert "/a" == machine.read()[1].values["trust"]["root"]


def test_a_mistake_names_the_file_that_has_it(load, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(
            GOOD, more='[products.acme]\nchanel = "beta"\n[feed]\nidle_timeout_s = 0\n'
        )

    told, where = str(caught.value), f"(in {tmp_path}/conf.d/more.toml)"
    assert f"feed.idle_timeout_s must be at least 0.5 s, it is 0 {where}" in told
    assert f"did you mean 'channel'? {where}" in told


def test_a_value_that_replaces_a_table_takes_its_origins_along(machine):
    machine.write(machine.vendor, "a", "[products.acme.health]\ncommand = ['/x']\n")
    own = machine.write(machine.own, "b", "[products]\nacme = 1\n")

    _, merged = machine.read()

    assert {("products", "acme"): own} == dict(merged.origins)


def test_updaterds_own_self_test_has_time_on_a_slow_machine(load):
    """By code that is not compiled yet it takes longer than a minute there."""
    settings = load(GOOD + '[products.updaterd]\nroot = "/opt/updaterd"\n')
    patience = {
        product.name: product.hooks.timeout_s for product in settings.products.values()
    }
    assert {"acme": 60.0, "updaterd": 300.0} == patience
