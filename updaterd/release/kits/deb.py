# SPDX-License-Identifier: Apache-2.0
"""A Debian package: three members of an `ar` archive, the same bytes each time.

deb(5), deb-control(5). https://www.debian.org/doc/debian-policy/ch-controlfields.html
"""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import PurePath

from updaterd.release.kits.contents import File

_MAGIC = b"!<arch>\n"


def package(
    control: Mapping[str, str],
    scripts: Mapping[str, str],
    files: Mapping[str, File],
    *,
    when: int,
) -> bytes:
    """Return the package.

    Args:
        control: the fields, in their order.
        scripts: what is run, by name.
        files: what is installed, by path below `/`.
        when: of everything in it, Unix seconds.
    """
    size = sum(len(file.data) + 1023 for file in files.values()) // 1024
    fields = {**control, "Installed-Size": str(size)}
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    sums = "".join(
        f"{hashlib.md5(file.data, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, file in files.items()
    )
    inside = {
        "control": File(text.encode()),
        "md5sums": File(sums.encode()),
        **{name: File(body.encode(), 0o755) for name, body in scripts.items()},
    }
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", tar(inside, when)),
        ("data.tar.gz", tar(files, when)),
    )
    return _MAGIC + b"".join(_member(name, data, when) for name, data in members)


def _member(name: str, data: bytes, when: int) -> bytes:
    head = f"{name:<16}{when:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n"
    return head.encode() + data + b"\n" * (len(data) % 2)


def tar(files: Mapping[str, File], when: int, *, packed: bool = True) -> bytes:
    """Return files and their folders as a tar archive, root's, of one time."""
    out = io.BytesIO()
    folders: set[PurePath] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, file in sorted(files.items()):
            for folder in reversed(PurePath(path).parents):
                if folder not in folders:
                    folders.add(folder)
                    archive.addfile(_info(f"./{folder}/", when, 0o755, folder=True))
            info = _info(f"./{path}", when, file.mode)
            info.size = len(file.data)
            archive.addfile(info, io.BytesIO(file.data))
    data = out.getvalue()
    return gzip.compress(data, compresslevel=9, mtime=0) if packed else data


def _info(name: str, when: int, mode: int, *, folder: bool = False) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name.replace("/./", "/").rstrip("/") or ".")
    info.mtime, info.mode = when, mode
    info.uname = info.gname = "root"
    info.type = tarfile.DIRTYPE if folder else tarfile.REGTYPE
    return info
