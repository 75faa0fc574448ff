"""Print what docs/ quote: exposure of the units, package sizes, memory, start.

    python3 packaging/scores.py [DIR_WITH_PACKAGES]

Sizes are of the packages found there (default: dist). Memory and start are those of
this interpreter; tests/system prints the packaged daemon's, on a real machine.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
DAEMON = """
import json, resource, sys, time
import updaterd.daemon.service, updaterd.cli.run
from updaterd import net
usage = resource.getrusage(resource.RUSAGE_SELF)
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"rss_kib": int(lines["VmRSS"].split()[0]),
                  "cpu_s": usage.ru_utime + usage.ru_stime,
                  "modules": len(sys.modules),
                  "heavy": sorted({"tuf", "cryptography", "bsdiff4", "rich", "click",
                                   "structlog", "httpx"} & set(sys.modules))}))
"""


def main():
    for unit in sorted((REPO / "systemd").glob("*.service")):
        done = subprocess.run(
            [
                *("systemd-analyze", "security", "--offline=true", "--no-pager"),
                str(unit),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        score = re.search(r": ([\d.]+) \w+", done.stdout.splitlines()[-1])[1]
        print(f"exposure  {unit.name:<26} {score}")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "dist"
    for path in sorted([*folder.glob("updaterd*.deb"), *folder.glob("updaterd*.rpm")]):
        print(f"size      {path.name:<40} {path.stat().st_size / 2**20:.2f} MiB")
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-I", "-c", DAEMON],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(3)
    ]
    best = min(runs, key=lambda run: run["cpu_s"])
    print(
        f"imports   daemon: {best['rss_kib'] / 1024:.1f} MiB RSS, {best['cpu_s']:.2f} "
        f"CPU s, {best['modules']} modules ({', '.join(best['heavy'])}); best of 3"
    )


if __name__ == "__main__":
    main()
