# SPDX-License-Identifier: Apache-2.0
import json
import re
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updaterd.core.grants import VERBS, grants, polkit_rule
from updaterd.core.settings import Product
from updaterd.errors import BrokenError


def product(name="acme", root="/opt/acme", units=("acme.service",)):
    return Product(name=name, root=PurePath(root), units=tuple(units))


def texts(*products):
    return {str(g.path): g.text for g in grants(products)}


def test_exactly_the_configured_units_may_be_restarted():
    """A rule for `acme.service` must not help with `ssh.service`."""
    rule = texts(
        product(units=["acme.service", "acme-web.socket"]),
        product("other", "/opt/other", ["other@1.service"]),
    )["/etc/polkit-1/rules.d/50-updaterd.rules"]
    named = json.loads(re.search(r"var units = (\[.*\]);", rule)[1])
    assert ["acme-web.socket", "acme.service", "other@1.service"] == named
    assert list(VERBS) == json.loads(re.search(r"var verbs = (\[.*\]);", rule)[1])
    assert 'subject.user == "updaterd"' in rule
    assert 1 == rule.count("Result.YES")


def test_only_a_daemon_that_updates_itself_may_restart_itself():
    assert "updaterd.service" not in "".join(texts(product()).values())
    own = texts(product("updaterd", "/opt/updaterd", []))
    assert '["updaterd.service"]' in own["/etc/polkit-1/rules.d/50-updaterd.rules"]


def test_product_trees_are_made_for_the_daemon_and_are_all_it_can_write():
    found = texts(product(), product("b", "/srv/b", []))
    assert (
        "d /opt/acme 0755 updaterd updaterd -\nd /srv/b 0755 updaterd updaterd -\n"
        in found["/etc/tmpfiles.d/updaterd-products.conf"]
    )
    drop_in = found["/etc/systemd/system/updaterd.service.d/50-products.conf"]
    paths = [line for line in drop_in.splitlines() if line.startswith("ReadWrite")]
    assert [
        "ReadWritePaths=",
        "ReadWritePaths=-/opt/acme",
        "ReadWritePaths=-/srv/b",
    ] == paths


@pytest.mark.parametrize(
    ("user", "root"),
    [("updaterd", "/srv/updaterd"), ("updaterd-lab", "/opt/updaterd"),
     ("updaterd", "/opt/updaterd-lab")],
)  # fmt: skip
def test_updaterd_is_granted_no_root_from_which_it_would_not_run(user, root):
    unit = user.replace("-", "@") + ".service"
    with pytest.raises(BrokenError, match=f"/opt/{user}"):
        grants([product("updaterd", root, [])], user=user, unit=unit)
    assert grants([product("updaterd", f"/opt/{user}", [])], user=user, unit=unit)


def test_the_daemon_starts_after_what_its_roots_lie_on_is_mounted():
    """Named as systemd-escape does; no disk that fails to come keeps it down."""
    found = texts(product(root="/srv/big-disk/.app"))
    drop_in = found["/etc/systemd/system/updaterd.service.d/50-products.conf"]
    units = r"srv.mount srv-big\x2ddisk.mount srv-big\x2ddisk-.app.mount"
    assert f"[Unit]\nWants={units}\nAfter={units}\n" in drop_in
    assert "Requires" not in drop_in


def test_an_instance_has_grants_of_its_own():
    found = grants([product()], user="updaterd-x", unit="updaterd@x.service")
    assert "/etc/polkit-1/rules.d/50-updaterd@x.rules" == str(found[0].path)
    assert 'subject.user == "updaterd-x"' in found[0].text


@pytest.mark.parametrize(
    "unit",
    [
        "acme",
        "*.service",
        "a/b.service",
        'a"];evil();//.service',
        "a b.service",
        "dev-sda.swap",
        "-.mount",
        "",
        "a\n.service",
        "a.service\n",
    ],
)
def test_what_is_no_unit_is_never_granted(unit):
    """Root evaluates the rule as a program; patterns would widen it."""
    with pytest.raises(BrokenError):
        grants([product(units=[unit])])


@pytest.mark.parametrize(
    "root",
    [
        *("/", "/etc", "/usr", "/opt", "/opt/", "/var/lib/updaterd", "opt/acme"),
        *("/opt/../etc", "/opt/a b", "/opt/a\nd /etc 0777", "/opt/%i", "/opt/é"),
    ],
)
def test_a_root_is_a_folder_of_the_products_own(root):
    """tmpfiles would hand it to the daemon; specifiers and spaces would be expanded."""
    with pytest.raises(BrokenError):
        grants([product(root=root)])


@given(st.text())
def test_whatever_is_granted_is_one_string_of_the_rule(unit):
    try:
        (rule, *_) = grants([product(units=[unit])])
    except BrokenError:
        return
    assert rule.text == polkit_rule([unit])
    assert json.loads(re.search(r"var units = (\[.*\]);", rule.text)[1]) == [unit]
