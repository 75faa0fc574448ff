# SPDX-License-Identifier: Apache-2.0
"""What a person sees of an update: a real desktop's notices, photographed and clicked.

    python benchmarks/notice.py                 makes docs/notice.png and docs/news.png
    python benchmarks/notice.py --out FOLDER

A feed server, a daemon, the process that answers applications and `updaterd session`,
as on a machine; Xvfb and xfce4-notifyd (Debian's) stand for the desktop, xdotool for
the person: "What's new" is clicked, then "Restart now", and the release runs. It ends
with an error where a notice does not come, or does not go. Debian has all of it:
xvfb xfce4-notifyd xdotool imagemagick dbus adwaita-icon-theme fonts-dejavu-core.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from fakes.machine import cli  # noqa: E402 # after the path is set
from fakes.releases import Releases  # noqa: E402 # as above
from fakes.tools import need  # noqa: E402 # as above
from fakes.varlink import listens  # noqa: E402 # as above
from fakes.waiting import eventually  # noqa: E402 # as above

NOTES = """\
- Letters open in half of the time.
- Drafts are kept when the battery ends.
- New: search by sender, also without a network.
"""
DESKTOP_IN = "/usr/lib/*/xfce4/notifyd/xfce4-notifyd"
SCREEN = "1024x500x24"
MARGIN = 6


class Screen:
    """An X server with a desktop that shows notifications.

    Args:
        folder: for what they write.
        stack: ends them.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        read, write = os.pipe()
        xvfb = (need("Xvfb", "xvfb"), "-displayfd", str(write), "-screen", "0", SCREEN)
        self.start(*xvfb, "-nolisten", "tcp", env={}, pass_fds=(write,))
        os.close(write)
        with open(read) as answer:
            display = f":{answer.readline().strip()}"
        run = folder / "run"
        run.mkdir(mode=0o700)
        bus = f"unix:path={run}/bus"
        self.env = {
            "DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": bus, "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(run), "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
        }  # fmt: skip
        words = ("--session", "--nofork", "--nopidfile", f"--address={bus}")
        self.start(need("dbus-daemon", "dbus"), *words)
        eventually(lambda: listens(run / "bus"), within_s=30)
        (notifyd,) = Path("/").glob(DESKTOP_IN[1:])
        self.start(notifyd, stdout=subprocess.DEVNULL)
        need("import", "imagemagick")

    def start(self, *argv: object, env=None, **more) -> subprocess.Popen:
        """Start something that is ended with the rest."""
        process = subprocess.Popen(
            [str(word) for word in argv],
            env=self.env if env is None else env or None,
            stderr=subprocess.DEVNULL,
            **more,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process

    def _say(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.env, capture_output=True, text=True, check=False
        )
        return done.stdout

    def notice(self) -> tuple[int, int, int, int] | None:
        """Return where the notice is: x, y, width, height; None: there is none."""
        words = ("search", "--onlyvisible", "--class", "notifyd")
        for window in self._say(need("xdotool"), *words).split():
            answer = self._say("xdotool", "getwindowgeometry", "--shell", window)
            facts = dict(line.split("=") for line in answer.split() if "=" in line)
            place = [int(facts.get(name, 0)) for name in ("X", "Y", "WIDTH", "HEIGHT")]
            if min(place[2:]) > MARGIN:
                return (place[0], place[1], place[2], place[3])
        return None

    def photograph(self, path: Path, place: tuple[int, int, int, int]) -> None:
        """Keep what is seen there."""
        x, y, width, height = place
        crop = f"{width + 2 * MARGIN}x{height + 2 * MARGIN}"
        crop += f"+{max(0, x - MARGIN)}+{max(0, y - MARGIN)}"
        argv = ("import", "-window", "root", "-crop", crop, "+repage", "-strip")
        subprocess.run([*argv, str(path)], env=self.env, check=True)

    def click(self, place: tuple[int, int, int, int], across: float) -> None:
        """Click a button at the foot of a notice, so far across it (0 to 1)."""
        x, y, width, height = place
        at = (str(x + int(width * across)), str(y + height - 25))
        self._say("xdotool", "mousemove", *at, "click", "1")
        self._say("xdotool", "mousemove", "5", "490")


def shown(screen: Screen, last=None):
    """Return where a notice is, as soon as one is that is not where the last was."""
    places: list = []

    def stands():
        place = screen.notice()
        places.append(place)
        return place if place and place != last and places[-3:] == [place] * 3 else None

    return eventually(stands, within_s=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    out = parser.parse_args().out
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="notice-"))
        folder = Path(scratch)
        releases = Releases(folder / "site")
        stack.callback(releases.close)
        releases.push("1.0.0")
        machine = releases.machine(
            folder / "machine", product_extra='activate = "on-request"'
        )
        machine.start()
        stack.callback(machine.stop)
        machine.wait_for("1.0.0")
        (folder / "notes.md").write_text(NOTES)
        releases.push("1.1.0", "--notes", folder / "notes.md", announced=True)
        screen = Screen(folder, stack)
        path = folder / "io.updaterd"
        api = (*cli.command, "api", "--socket", path, *machine.options)
        screen.start(*api)
        eventually(lambda: listens(path), within_s=60)
        session = ("session", "--socket", path, "--memory", folder / "session.json")
        screen.start(*cli.command, *session)

        first = shown(screen)
        screen.photograph(out / "notice.png", first)
        screen.click(first, 0.85)
        second = shown(screen, first)
        screen.photograph(out / "news.png", second)
        assert machine.running == "1.0.0"
        screen.click(second, 0.53)
        eventually(lambda: machine.running == "1.1.0", within_s=60)
        eventually(lambda: screen.notice() is None, within_s=60)

        def installed_notes():
            answer = machine("status", "--notes", "acme").stdout
            return answer if "1.1.0 (installed)" in answer else None

        print(eventually(installed_notes, within_s=60))
    return 0


if __name__ == "__main__":
    sys.exit(main())
