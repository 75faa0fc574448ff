# SPDX-License-Identifier: Apache-2.0
"""The life of an application that came by a kit, on a booted machine."""

import json
import time
from contextlib import contextmanager

from fakes.waiting import eventually

FORMS = ("deb", "deb-offline", "apt", "sh", "sh-offline", "person", "person-offline")
PERSON = 1000
PATIENCE_S = 300  # of a machine that has more to do
APT = ("apt-get", "-y", "-qq", "--no-install-recommends")
# What the machine itself writes while packages come and go, whoever installs what.
ITS_OWN = (
    "var/log", "var/lib/dpkg", "var/lib/apt", "var/cache", "var/lib/systemd", "dev",
    "tmp", "var/tmp", "proc", "sys", "run", "kits", "root", "home",
    "etc/.pwd.lock", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-",
    "etc/subuid-", "etc/subgid-", "var/backups", "etc/ld.so.cache",
)  # fmt: skip
# Opens a connection for one call, and keeps it until its input ends.
CALL = """
import json, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
call = {"method": "io.updaterd.Updater." + sys.argv[2]}
call["parameters"] = json.loads(sys.argv[3])
s.sendall(json.dumps(call).encode() + b"\\0")
data = b""
while not data.endswith(b"\\0"): data += s.recv(65536) or sys.exit(1)
print(data[:-1].decode(), flush=True)
"""


class Walk:
    """What a person does with one form of the kit.

    Args:
        machine: booted.
        ops: the publisher, whose kits are in /kits there.
        form: one of FORMS.
    """

    def __init__(self, machine, ops, form):
        self.machine, self.ops, self.form = machine, ops, form
        self.is_person = form.startswith("person")
        if self.is_person:
            self.home = "/home/a person"
            self.app = f"{self.home}/.local/opt/acme"
            self.runtime = f"/run/user/{PERSON}/updaterd-acme"
            self.owner = f"{self.home}/.config/updaterd-acme/conf.d"
        else:
            self.home, self.app = "/root", "/opt/acme"
            self.runtime = "/run/updaterd-acme"
            self.owner = "/etc/updaterd-acme/conf.d"
        self.data = [f"{self.app}/data/letter"[1:]]

    # -- as whoever it is for

    def run(self, *words, check=True):
        """Run a command as root, or as the person; return what it says."""
        around = ()
        if self.is_person:
            bus = f"unix:path=/run/user/{PERSON}/bus"
            around = (
                *("setpriv", f"--reuid={PERSON}", f"--regid={PERSON}", "--init-groups"),
                *("env", f"--chdir={self.home}", f"HOME={self.home}", "USER=person"),
                *(f"XDG_RUNTIME_DIR=/run/user/{PERSON}",),
                *(f"DBUS_SESSION_BUS_ADDRESS={bus}",),
                f"PATH={self.home}/.local/bin:/usr/bin:/bin",
            )
        done = self.machine.run(*around, *words)
        if check:
            assert 0 == done.returncode, (words, done.stdout, done.stderr, self.why())
        return done.stdout if check else done

    def systemctl(self, *words, check=True):
        user = ("--user",) if self.is_person else ()
        return self.run("systemctl", *user, *words, check=check)

    def why(self):
        user = ("--user",) if self.is_person else ()
        words = ("--no-pager", "-n", "40", *user, "-u", "updaterd@acme")
        return self.machine.run("journalctl", *words).stdout[-5000:]

    # -- installed, and taken away

    def install(self):
        """From nothing: no updaterd is here."""
        machine, kits = self.machine, self.ops.kits
        assert 0 != machine.run("sh", "-c", "command -v updaterd").returncode
        if self.is_person:
            words = ("--create-home", "--home-dir", self.home, "--uid", str(PERSON))
            machine.must("useradd", *words, "--shell", "/bin/sh", "person")
            machine.must("loginctl", "enable-linger", "person")
            eventually(
                lambda: machine.run("test", "-S", f"/run/user/{PERSON}/bus").returncode
                == 0
                or machine.run(
                    "test", "-S", f"/run/user/{PERSON}/systemd/private"
                ).returncode == 0,
                within_s=PATIENCE_S,
            )  # fmt: skip
        self.before = self.files()
        offline = "-offline" if self.form.endswith("offline") else ""
        own = self.ops.package.name
        match self.form:
            case "deb" | "deb-offline":
                arch = "amd64" if offline else "all"
                kit = f"acme-setup{offline}_1.0_{arch}.deb"
                words = (*APT, "install", f"/kits/{own}", f"/kits/{kit}")
            case "apt":
                if not (kits / "apt").exists():
                    self.ops.archive()
                source = (kits / "apt/stable.sources").read_text()
                machine.write("/etc/apt/sources.list.d/acme.sources", source)
                self.data.append("etc/apt/sources.list.d/acme.sources")
                only = "Dir::Etc::sourcelist=/etc/apt/sources.list.d/acme.sources"
                parts = "Dir::Etc::sourceparts=-"
                apt = " ".join((*APT, "-o", only, "-o", parts))
                words = ("sh", "-c", f"{apt} update && {apt} install acme-setup")
            case _:
                words = ("sh", f"/kits/acme-setup{offline}.sh")
                words += ("--user",) if self.is_person else ()
        if offline:
            self.ops.stop()
        try:
            print(self.form, self.run(*words))
            self.is_running()
        finally:
            if offline:
                self.ops.start()

    def is_running(self):
        assert self.current() is not None, self.why()
        for unit in ("acme", "updaterd@acme", "updaterd-api@acme.socket"):
            asked = ("show", "--value", "-p", "ActiveState,UnitFileState", unit)
            assert ["active", "enabled"] == self.systemctl(*asked).split(), unit

    def current(self):
        link = self.machine.root / self.app[1:] / "current"
        return link.readlink().name if link.is_symlink() else None

    def remove(self):
        path = f"{self.app}/data"
        self.run("mkdir", "-p", path)
        self.run("sh", "-c", f"echo mine >'{path}/letter'")
        match self.form:
            case "deb" | "deb-offline" | "apt":
                words = (*APT, "purge", "acme-setup", "updaterd")
            case "sh" | "sh-offline":
                words = ("sh", "/kits/acme-setup.sh", "--remove")
            case _:
                words = ("sh", "/kits/acme-setup.sh", "--user", "--remove")
        print(self.run(*words))
        if self.form.startswith("sh"):  # it leaves updaterd, which others may use
            self.run(*APT, "purge", "updaterd")

    def files(self):
        """Return all files of the machine but those that it changes by itself."""
        prune = " -o ".join(f"-path ./{path}" for path in ITS_OWN)
        said = self.machine.must(
            "sh",
            "-c",
            f"cd / && find . -xdev \\( {prune} \\) -prune -o -not -type d -print "
            "-o -printf '%p/\\n'; find ./home -not -type d; "
            "ls -d run/updaterd* run/systemd/*/acme* 2>/dev/null; true",
        )
        return {line.removeprefix("./") for line in said.splitlines()}

    def left(self):
        """Return what is there that was not: users stay, who may own files."""
        self.settle()
        fresh = self.files() - self.before
        return sorted(path for path in fresh if not path.endswith((".pyc", "/")))

    def lost(self):
        """Return what was there before, also folders, and is not."""
        return sorted(self.before - self.files())

    def settle(self):
        self.machine.run("systemctl", "daemon-reload")

    def forget(self):
        """Make the machine as it was, also where something went wrong."""
        machine = self.machine
        machine.run("dpkg", "--purge", "acme-setup", "updaterd")
        if self.is_person:
            machine.must("loginctl", "disable-linger", "person")
            machine.run("systemctl", "stop", f"user@{PERSON}")
            machine.run("userdel", "--remove", "person")
        source = "/etc/apt/sources.list.d/acme.sources"
        machine.must("rm", "-rf", self.app, self.owner, source)

    # -- what comes by push

    def push(self):
        """It is installed, and the application's unit restarted."""
        before = self.main_pid()
        version = self.ops.release()
        self.comes(version)
        eventually(lambda: self.main_pid() not in (before, "0"), within_s=PATIENCE_S)

    def main_pid(self):
        return self.systemctl("show", "--value", "-p", "MainPID", "acme").strip()

    def comes(self, version, within_s=PATIENCE_S):
        try:
            eventually(lambda: self.current() == version, within_s=within_s)
            eventually(lambda: self.status()["state"] == "current", within_s=PATIENCE_S)
        except AssertionError:
            said = self.status()
            raise AssertionError(f"{version}: {said}\n{self.why()}") from None

    def configure(self, text):
        """Write what the owner wants; the daemon takes it."""
        self.run("mkdir", "-p", self.owner)
        path = f"{self.owner}/90-owner.toml"
        self.data = sorted({*self.data, path[1:]})  # nobody's to delete
        self.run("sh", "-c", f"cat >'{path}' <<'END'\n{text}\nEND")
        self.systemctl("reload", "updaterd@acme")

    # -- what an application asks

    def call(self, method, *, user=None, **parameters):
        """Call a method of the interface; return the answer, or the error's name."""
        words = ("python3", "-c", CALL, f"{self.runtime}/io.updaterd", method)
        words += (json.dumps(parameters),)
        if user is not None:
            said = self.machine.must(*words, user=user)
        else:
            said = self.run(*words)
        answer = json.loads(said)
        return answer.get("error") or answer.get("parameters", {})

    def status(self):
        return self.call("Status", product="acme")["status"]

    def is_ready(self, version, code):
        def ready():
            status = self.status()
            return (status["ready"], status["code"]) == (version, code)

        try:
            eventually(ready, within_s=PATIENCE_S)
        except AssertionError:
            raise AssertionError(f"{version} {code}: {self.status()}") from None

    def postpone(self):
        """Until a time, at which it is activated without another word."""
        self.configure('[products.acme]\nactivate = "on-request"')
        version = self.ops.release()
        self.is_ready(version, "waits_for_request")
        later = int(time.time()) + 3600
        assert {"until": later} == self.call("Postpone", product="acme", until=later)
        self.is_ready(version, "postponed")
        assert version != self.current()
        soon = int(time.time()) + 3
        assert {"until": soon} == self.call("Postpone", product="acme", until=soon)
        self.comes(version)
        assert time.time() >= soon

    def ask_who_may(self):
        """A stranger may look, and change nothing; varlinkctl says the same."""
        denied = "org.varlink.service.PermissionDenied"
        nobody = 65534
        if self.is_person:
            words = ("test", "-w", f"{self.runtime}/io.updaterd")
            assert 0 != self.machine.run(*words, user=nobody).returncode
        else:
            assert {"products": ["acme"]} == self.call("List", user=nobody)
            for method in ("Apply", "Check", "Update", "Unhold"):
                said = self.call(method, user=nobody, product="acme")
                assert denied == said
        if self.machine.run("sh", "-c", "command -v varlinkctl").returncode:
            return
        address = f"{self.runtime}/io.updaterd"
        name = "io.updaterd.Updater"
        assert "updaterd" in self.run("varlinkctl", "info", address)
        said = self.run("varlinkctl", "introspect", address, name)
        assert "method Inhibit" in said
        ask = ("varlinkctl", "--json=short", "call", address)
        product = '{"product": "acme"}'
        status = json.loads(self.run(*ask, f"{name}.Status", product))
        assert self.current() == status["status"]["installed"]
        self.configure('[products.acme]\nactivate = "on-request"')
        version = self.ops.release()
        self.is_ready(version, "waits_for_request")
        why = '{"product": "acme", "why": "a call is on"}'
        with self.kept("varlinkctl", "call", "--more", address, f"{name}.Inhibit", why):
            eventually(lambda: self.run(*ask, f"{name}.Apply", product))
            self.is_ready(version, "inhibited")
        self.run(*ask, f"{name}.Apply", product, check=False)
        self.comes(version)

    @contextmanager
    def kept(self, *words):
        """Have a command run while the block does, as a unit of its own."""
        name = f"kept-{time.monotonic_ns()}"
        user = ("--user",) if self.is_person else ()
        self.run("systemd-run", *user, "--quiet", f"--unit={name}", *words)
        try:
            yield name
        finally:
            self.systemctl("stop", name, check=False)

    # -- what a desktop adds; on the images of UPDATERD_KITS=all

    def wait_on_a_metered_line(self):
        self.configure('[products.acme]\nactivate = "at-once"')
        with self.network(metered=1):
            version = self.ops.release(size=400_000)
            eventually(lambda: self.status()["code"] == "metered", within_s=PATIENCE_S)
            assert version != self.current()
        with self.network(metered=2):
            self.run("updaterd", "update", "acme")
            self.comes(version)

    @contextmanager
    def network(self, metered):
        """Have a NetworkManager that says so, on the machine's own bus."""
        name = "org.freedesktop.NetworkManager"
        policy = (
            '<busconfig><policy user="root"><allow own="' + name + '"/></policy>'
            '<policy context="default"><allow send_destination="' + name + '"/>'
            "</policy></busconfig>"
        )
        machine = self.machine
        machine.write("/etc/dbus-1/system.d/network.conf", policy)
        machine.must("systemctl", "reload", "dbus")
        machine.must(
            *("systemd-run", "--quiet", "--unit=network", "python3", "-m", "dbusmock"),
            *("--system", name, "/org/freedesktop/NetworkManager", name),
        )
        ask = ("busctl", "call", name, "/org/freedesktop/NetworkManager")
        add = ("org.freedesktop.DBus.Mock", "AddProperty", "ssv", name, "Metered")
        try:
            eventually(
                lambda: 0 == machine.run(*ask, *add, "u", str(metered)).returncode
            )
            yield
        finally:
            machine.run("systemctl", "stop", "network")
            machine.must("rm", "/etc/dbus-1/system.d/network.conf")

    def tell_on_the_desktop(self):
        """A notice comes, once; what a person chooses there is done."""
        if not self.is_person:
            return  # root has no desktop
        notes = "org.freedesktop.Notifications"
        path = "/org/freedesktop/Notifications"
        mock = "org.freedesktop.DBus.Mock"
        ask = ("busctl", "--user", "--json=short", "call", notes, path, mock)
        self.configure('[products.acme]\nactivate = "on-request"')
        words = ("python3", "-m", "dbusmock", "--template", "notification_daemon")
        with self.kept(*words), self.kept("updaterd", "session") as session:
            version = self.ops.release()
            heard = ("GetMethodCalls", "s", "Notify")
            eventually(lambda: version in self.run(*ask, *heard), within_s=PATIENCE_S)
            said = json.loads(self.run(*ask, *heard))
            assert 1 == json.dumps(said).count(f"Acme {version} is ready")
            pid = self.systemctl("show", "--value", "-p", "MainPID", session).strip()
            rollup = self.run("cat", f"/proc/{pid}/smaps_rollup")
            (pss,) = (x.split()[1] for x in rollup.splitlines() if x[:4] == "Pss:")
            print(f"updaterd-session: {int(pss) / 1024:.1f} MiB (PSS)")
            self.run(
                *(*ask, "EmitSignal", "sssav", notes, "ActionInvoked", "us"),
                *("2", "u", "1", "s", "apply"),
            )
            self.comes(version)
            eventually(
                lambda: (
                    "1" in self.run(*ask, "GetMethodCalls", "s", "CloseNotification")
                )
            )

    def keep_the_units(self):
        """The owner has updaterd leave them alone; the kit still brought them."""
        self.configure("[products.acme]\nunits = []")

    def wait_for_the_application(self):
        """Without a unit: it is activated when its last process has ended."""
        self.systemctl("stop", "acme")
        self.configure('[products.acme]\nactivate = "at-exit"\nunits = []')
        with self.kept(f"{self.app}/current/bin/acme"):
            version = self.ops.release()
            self.is_ready(version, "waits_for_exit")
            assert version != self.current()
        self.comes(version)
