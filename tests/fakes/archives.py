# SPDX-License-Identifier: Apache-2.0
"""Archives for tests: the same content, packed in every way that is looked into."""

import gzip
import io
import random
import tarfile
import zipfile
import zlib

WORDS = [b"%x" % (n * 2654435761 % 2**28) for n in range(900)]


def text(seed, count=1500):
    draw = random.Random(seed)
    return b" ".join(draw.choice(WORDS) for _ in range(count))


def zipped(members, level=6, stamp=0):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, stamp))
            file.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=level)
    return out.getvalue()


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def picture(rows, level=9):
    """A PNG with one chunk of pixels."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = (100).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    pixels = b"".join(b"\0" + rows[at : at + 100] for at in range(0, 10_000, 100))
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(pixels, level)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def release(changed):
    """A tree of archives of all kinds; the changed one differs in a few words."""
    docs = {f"d{n}": text(n) for n in range(6)}
    if changed:
        docs["d3"] = docs["d3"].replace(b" ", b"  ", 3) + b"the end"
    inner = zipped(docs, stamp=2 * changed)
    return {
        "a.jar": zipped({"in.zip": inner, "x": docs["d3"]}, stamp=2 * changed),
        "b.gz": gzip.compress(tarred(docs), 9, mtime=changed),
        "c.png": picture(docs["d3"][:10_000]),
        "d.bin": b"head" + zlib.compress(docs["d3"] * 3, 5) + b"tail",
        "e.docx": zipped(docs, level=1),
        "other.zip": zipped({"y": text(77) + b"!" * changed}, level=9),
        "plain": docs["d3"],
        "stays": b"s",
    }
