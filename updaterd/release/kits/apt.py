# SPDX-License-Identifier: Apache-2.0
"""An apt repository out of packages: files that any web server serves.

https://wiki.debian.org/DebianRepository/Format. Indexes also stand under their hash
(`Acquire-By-Hash`), the signed file is written last, and what an older one names stays:
who fetches in the middle of it gets one state of it, old or new.
"""

import email.utils
import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from updaterd import durable
from updaterd.release.kits.description import KitError

_MAGIC = b"!<arch>\n"
KEY = "archive-key.asc"
_UNCHANGED = "what machines find in the apt repository is as it was"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What an apt repository says of itself.

    Attributes:
        origin: whose it is, for people and for pinning.
        suite: what a source names it by.
        key: of gpg, by which it is signed.
        url: where it will be served.
        when: of its indexes, Unix seconds.
    """

    origin: str
    suite: str
    key: str
    url: str
    when: float


def control(path: Path) -> str:
    """Return the fields of a package (deb(5)).

    Raises:
        KitError: it cannot be read.
        _no_package: it is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KitError(
            f"{path} cannot be read: {error.strerror}",
            "give the package's file",
            means=_UNCHANGED,
        ) from error
    try:
        for name, body in _members(data):
            if name.startswith(b"control.tar"):
                with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                    for info in archive:
                        file = archive.extractfile(info) if info.isfile() else None
                        if file and info.name.removeprefix("./") == "control":
                            return file.read().decode().rstrip("\n") + "\n"
    except (ValueError, tarfile.TarError) as error:
        raise _no_package(path, f": {error}") from error
    raise _no_package(path)


def knows_kits(path: Path) -> bool:
    """Tell whether a package of updaterd's has what installers for a person need.

    Raises:
        OSError: it cannot be read.
    """
    try:
        for name, body in _members(path.read_bytes()):
            if name.startswith(b"data.tar.xz"):
                with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                    names = (info.name.removeprefix("./") for info in archive)
                    return "usr/lib/systemd/user/updaterd@.service" in names
    except (ValueError, tarfile.TarError):
        return False
    return False


def _members(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the files in a package, by name (ar(5)).

    Raises:
        ValueError: a length is no number.
    """
    at = len(_MAGIC)
    while data.startswith(_MAGIC) and at + 60 <= len(data):
        head, size = data[at : at + 60], int(data[at + 48 : at + 58])
        yield head[:16].rstrip(), data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _no_package(path: Path, why: str = "") -> KitError:
    return KitError(
        f"{path} is no Debian package{why}", "give a .deb", means=_UNCHANGED
    )


def _field(text: str, name: str) -> str:
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key == name), "")


def write(archive: Archive, packages: Iterable[Path], out: Path) -> list[Path]:
    """Write the repository into a folder; return the indexes, the signed one last.

    Packages that are there already stay and are listed, too.

    Raises:
        KitError: one is no package, or gpg does not sign.

    Power cut: the signed index is the old one, and all that it names is there, or the
        new one.
    """
    pool = out / "pool"
    durable.make_dir(pool)
    for path in packages:
        control(path)
        durable.publish_file(pool / path.name, path.read_bytes())
    listed = {path: control(path) for path in sorted(pool.glob("*.deb"))}
    arches = {_field(text, "Architecture") for text in listed.values()} - {"all"}
    suite = out / "dists" / archive.suite
    indexes: dict[str, bytes] = {}
    for arch in sorted(arches or {"amd64"}):
        text = "\n".join(
            _entry(path, fields)
            for path, fields in listed.items()
            if _field(fields, "Architecture") in (arch, "all")
        ).encode()
        folder = f"main/binary-{arch}"
        indexes[f"{folder}/Packages"] = text
        indexes[f"{folder}/Packages.gz"] = gzip.compress(text, mtime=0)
    release = _release(archive, sorted(arches or {"amd64"}), indexes)
    signed = _gpg(archive.key, "--clearsign", release)
    detached = _gpg(archive.key, "--armor", release, "--detach-sign")
    public = _gpg(archive.key, "--armor", b"", "--export", archive.key)
    for name, data in indexes.items():
        path = suite / name
        durable.make_dir(path.parent / "by-hash/SHA256")
        digest = hashlib.sha256(data).hexdigest()
        durable.publish_file(path.parent / "by-hash/SHA256" / digest, data)
        durable.publish_file(path, data)
    source = _source(archive, public.decode())
    durable.publish_file(out / KEY, public)
    durable.publish_file(out / f"{archive.suite}.sources", source.encode())
    durable.publish_file(suite / "Release", release)
    durable.publish_file(suite / "Release.gpg", detached)
    durable.publish_file(suite / "InRelease", signed)
    return [*(suite / name for name in indexes), suite / "InRelease"]


def _entry(path: Path, fields: str) -> str:
    data = path.read_bytes()
    return (
        f"{fields}Filename: pool/{path.name}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
    )


def _release(
    archive: Archive, arches: list[str], indexes: Mapping[str, bytes]
) -> bytes:
    lines = [
        f"Origin: {archive.origin}",
        f"Label: {archive.origin}",
        f"Suite: {archive.suite}",
        f"Codename: {archive.suite}",
        f"Date: {email.utils.formatdate(archive.when, usegmt=True)}",
        f"Architectures: {' '.join(arches)}",
        "Components: main",
        "Acquire-By-Hash: yes",
        "SHA256:",
        *(
            f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}"
            for name, data in sorted(indexes.items())
        ),
    ]
    return ("\n".join(lines) + "\n").encode()


def _source(archive: Archive, public: str) -> str:
    """Return what a machine puts into /etc/apt/sources.list.d (sources.list(5)).

    With the key in it, which counts for this source only, and goes with it.
    """
    key = "".join(f" {line or '.'}\n" for line in public.strip().splitlines())
    return (
        f"Types: deb\nURIs: {archive.url}\nSuites: {archive.suite}\n"
        f"Components: main\nSigned-By:\n{key}"
    )


def _gpg(key: str, how: str, data: bytes, *more: str) -> bytes:
    """Return what gpg makes of data.

    Raises:
        KitError: it is not here, or does not have the key.
    """
    words = ["gpg", "--batch", "--yes", "--quiet", "--local-user", key, how, *more]
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            words, input=data, capture_output=True, check=False
        )
    except OSError as error:
        raise KitError(
            f"an apt repository is signed by gpg: {error}",
            "install gnupg",
            means=_UNCHANGED,
        ) from error
    if done.returncode != 0 or not done.stdout:
        text = done.stderr.decode(errors="replace").strip()
        raise KitError(
            f"gpg did not sign: {'; '.join(text.splitlines())[-300:]}",
            f"name a key that `gpg --list-secret-keys` shows in place of {key}, or "
            "make one (docs/kits.md)",
            means=_UNCHANGED,
        )
    return done.stdout
