# SPDX-License-Identifier: Apache-2.0
"""What the wheels say of themselves: the copyright file and the bill of materials.

Both are made from the wheels that are unpacked into a package, so they name what is
in it, no more and no less.
"""

import hashlib
import json
import re
import uuid
import zipfile
from datetime import UTC, datetime
from email.parser import HeaderParser

import pins
import project

# as SPDX spells licences; what else authors write is a name and no expression
_IDENTIFIER = r"(?:MIT|ISC|[A-Z][A-Za-z]*-\d[\w.-]*)"
_EXPRESSION = re.compile(rf"{_IDENTIFIER}(?: (?:AND|OR) {_IDENTIFIER})*")
_NAMESPACE = uuid.UUID("f61a3c1e-6c0f-5a53-9d0a-4d5b7f2f5d6e")
_NESTED = ("type", "name", "version", "purl", "licenses", "hashes")


def headers(archive):
    """Return a wheel's metadata."""
    names = archive.namelist()
    path = next(name for name in names if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(archive.read(path).decode())


def licence_of(head):
    """Return the licence that the authors declare, in their words."""
    licence = head["License-Expression"] or head["License"] or ""
    if not licence or "\n" in licence or len(licence) > 60:
        rows = [row for row in head.get_all("Classifier", []) if "License" in row]
        licence = rows[-1].rsplit(" :: ", 1)[-1] if rows else "see below"
    return licence


def copyright_of(wheels):
    """Return a machine-readable copyright file: whose software is in the package."""
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        "Upstream-Name: updaterd",
        "Source: the files of the project, and wheels from the Python package index",
        "",
        "Files: *",
        "Copyright: the updaterd developers",
        "License: Apache-2.0",
        "",
    ]
    for name, (holder, licence, text, tops) in _licences(wheels).items():
        label = re.sub(r"[^\w.+-]+", "-", f"{licence}-{name}")
        lines += [
            "Files: " + " ".join(f"usr/lib/updaterd/site*/{top}" for top in tops),
            f"Copyright: {holder}",
            f"License: {label}",
            *(f" {line}" if line.strip() else " ." for line in text.splitlines()),
            "",
        ]
        if not text:
            lines.insert(-1, f" {licence}, as its authors declare")
    lines.append("License: Apache-2.0")
    lines += [
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."
    ]
    return "\n".join(lines) + "\n"


def _licences(wheels):
    """Return holder, licence, its text and the files' places, by distribution."""
    texts = {}
    for wheel in sorted(wheels):
        with zipfile.ZipFile(wheel) as archive:
            names, head = archive.namelist(), headers(archive)
            name = head["Name"]
            if name == "updaterd" or name in texts:
                continue
            holder = head["Author"] or head["Author-email"] or f"the authors of {name}"
            files = [n for n in names if re.search(r"dist-info/.*LICEN[CS]E", n)]
            text = "\n".join(archive.read(n).decode(errors="replace") for n in files)
            if "Apache License" in text and len(text) > 9000:
                text = "On Debian systems: /usr/share/common-licenses/Apache-2.0."
            texts[name] = (holder, licence_of(head), text, _tops(names))
    return texts


def _tops(names):
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    return sorted(f"{t}" if "." in t else f"{t}/*" for t in tops if ".data" not in t)


def bill(package, arch, wheels, when):
    """Return the package's bill of materials: CycloneDX 1.6, JSON, the same each time.

    A wheel's own bill (PEP 770) is nested in its component: OpenSSL, for one, is
    compiled into `cryptography`.
    """
    components, wants = {}, {}
    for wheel in sorted(wheels):
        with zipfile.ZipFile(wheel) as archive:
            head = headers(archive)
            name = pins.canonical(head["Name"])
            if name not in components:
                components[name] = _component(name, head, archive)
                wants[name] = _requirements(head)
        components[name]["externalReferences"].append({
            "type": "distribution",
            "url": wheel.name,
            "hashes": [
                {
                    "alg": "SHA-256",
                    "content": hashlib.sha256(wheel.read_bytes()).hexdigest(),
                }
            ],
        })
    top = f"pkg:generic/{package}@{project.version()}?arch={arch}"
    edges = [
        {"ref": top, "dependsOn": sorted(c["bom-ref"] for c in components.values())}
    ]
    edges += [
        {
            "ref": component["bom-ref"],
            "dependsOn": sorted(
                components[want]["bom-ref"]
                for want in wants[name]
                if want in components
            ),
        }
        for name, component in sorted(components.items())
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(when, UTC).isoformat(),
            "component": {
                "type": "application",
                "bom-ref": top,
                "name": package,
                "version": project.version(),
                "purl": top,
                "licenses": [{"license": {"id": project.table()["license"]}}],
            },
        },
        "components": [components[name] for name in sorted(components)],
        "dependencies": edges,
    }
    text = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_NAMESPACE, text)}"
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _component(name, head, archive):
    purl = f"pkg:pypi/{name}@{head['Version']}"
    licence = licence_of(head)
    spdx = _EXPRESSION.fullmatch(licence)
    component = {
        "type": "library",
        "bom-ref": purl,
        "name": head["Name"],
        "version": head["Version"],
        "purl": purl,
        "licenses": [
            {"expression": licence} if spdx else {"license": {"name": licence}}
        ],
        "externalReferences": [],
    }
    if inner := _inner(archive):
        component["components"] = inner
    return component


def _inner(archive):
    """Return what a wheel says is compiled into it; its own bill names it."""
    parts = {}
    for path in archive.namelist():
        if re.search(r"\.dist-info/sboms/.*\.json$", path):
            for part in json.loads(archive.read(path)).get("components", ()):
                entry = {key: part[key] for key in _NESTED if key in part}
                parts[json.dumps(entry, sort_keys=True)] = entry
    return [parts[text] for text in sorted(parts)]


def _requirements(head):
    """Return the distributions that it may import, without those of its extras."""
    rows = head.get_all("Requires-Dist", [])
    return {
        pins.canonical(re.match(r"[\w.-]+", row)[0])
        for row in rows
        if "extra ==" not in row
    }
