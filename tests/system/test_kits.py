# SPDX-License-Identifier: Apache-2.0
"""From nothing to a running application by one command, and away again.

A .deb on a booted Debian 12, as root's service, and the shell's installer for a person.
All forms on Debian 12 and 13, with all that an application and a desktop may want in
between (about twenty minutes):

    UPDATERD_KITS=all .venv/bin/pytest -n0 -s -m system tests/system/test_kits.py

The rpm is not in it: a system with rpm cannot be had here (test_other_systems.py).
"""

import os
import shutil
import subprocess

import pytest
from fakes.kit_site import Ops
from fakes.kit_walk import FORMS, Walk

from .conftest import PACKAGES, Booted

ALL = os.environ.get("UPDATERD_KITS") == "all"
SUITES = ("bookworm", "trixie") if ALL else ("bookworm",)
# a session bus, and who stands for NetworkManager and a desktop on it
MORE = "dbus-user-session,python3-dbusmock"


@pytest.fixture(scope="module")
def ops(tmp_path_factory, built):
    (package,) = built.glob("updaterd_*.deb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPDATERD_PASSPHRASE", "correct horse battery staple")
        site = Ops(tmp_path_factory.mktemp("ops"), package)
        yield site
        site.stop()
        site.origin.__exit__()


@pytest.fixture(scope="module", params=SUITES)
def machine(request, debian, ops, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param) / "root"
    root.mkdir(mode=0o755)
    root.parent.chmod(0o755)
    archive = debian(request.param, f"{PACKAGES},{MORE}" if ALL else PACKAGES)
    subprocess.run(["tar", "-C", root, "-xf", archive], check=True)
    shutil.copytree(ops.kits, root / "kits")
    booted = Booted(root, root.parent / "console")
    try:
        booted.wait_until_up()
        yield booted
    finally:
        booted.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("form", FORMS if ALL else ("deb", "person"))
def test_one_command_from_nothing_and_away(machine, ops, form):
    """Installed, pushed to, removed: only the application's data is left."""
    walk = Walk(machine, ops, form)
    try:
        walk.install()
        walk.push()
        if ALL:
            walk.postpone()
            walk.ask_who_may()
            walk.wait_on_a_metered_line()
            walk.tell_on_the_desktop()
            walk.wait_for_the_application()
        elif form == "deb":
            walk.keep_the_units()
        walk.remove()
        assert walk.left() == sorted(walk.data)
        assert walk.lost() == []
    finally:
        walk.forget()
