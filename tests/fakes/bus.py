# SPDX-License-Identifier: Apache-2.0
"""A real dbus-daemon of its own, with python-dbusmock's services on it."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from fakes.tools import need, refuse
from fakes.varlink import listens
from fakes.waiting import eventually
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection

PYTHON = "/usr/bin/python3"  # dbusmock is Debian's, for Debian's Python


class Bus:
    def __init__(self, address):
        self.address = address

    def call(self, name, path, interface, method, signature="", *values):
        with open_dbus_connection(self.address) as connection:
            where = DBusAddress(path, bus_name=name, interface=interface)
            message = new_method_call(where, method, signature or None, values)
            return connection.send_and_get_reply(message, timeout=20)

    def owns(self, name):
        body = self.call(
            "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
            "NameHasOwner", "s", name,
        ).body  # fmt: skip
        return body[0] is True

    @contextmanager
    def mock(self, template, name, *, env=()):
        """Have a template of python-dbusmock on this bus while the block runs."""
        if not Path("/usr/share/doc/python3-dbusmock").exists():
            refuse("needs python3-dbusmock: apt-get install python3-dbusmock")
        process = subprocess.Popen(
            [PYTHON, "-m", "dbusmock", "--system", "--template", template],
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address, **dict(env)},
            stdout=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: self.owns(name), within_s=30)
            yield
        finally:
            process.terminate()
            process.wait()


@contextmanager
def bus(folder):
    """Yield a bus that any user of this machine may connect to."""
    config = folder / "bus.conf"
    socket = folder / "bus"
    config.write_text(f"""
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
""")
    daemon = need("dbus-daemon", "dbus")
    process = subprocess.Popen([
        daemon,
        f"--config-file={config}",
        "--nofork",
        "--nopidfile",
    ])
    try:
        eventually(lambda: listens(socket), within_s=30)  # not: is bound
        yield Bus(f"unix:path={socket}")
    finally:
        process.terminate()
        process.wait()
