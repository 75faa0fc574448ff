# SPDX-License-Identifier: Apache-2.0
"""One flipped byte, anywhere between the publisher and the machine."""

from pathlib import Path

import pytest
from fakes.trees import make_tree, snapshot


def release(tmp_path, version):
    return make_tree(
        tmp_path / "build" / version,
        {
            "bin/app": f"#!/bin/sh\necho {version}\n",
            "bin/healthcheck": "#!/bin/sh\nexit 0\n",
            "lib/data": bytes(range(256)) * 400 + version.encode(),
        },
    )


@pytest.fixture
def installed(tmp_path, site, machine):
    """A machine with 1.0.0, and 1.1.0 published."""
    site.push(release(tmp_path, "1.0.0"), "1.0.0")
    machine("update", "acme")
    before = set(files(site.public))
    site.push(release(tmp_path, "1.1.0"), "1.1.0")
    return set(files(site.public)) - before


def files(root: Path):
    return [path for path in root.rglob("*") if path.is_file()]


def flip(path: Path) -> bytes:
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    return good


def refuses_then_heals(tmp_path, machine, damaged: list[Path]):
    before = snapshot(machine.current.resolve())
    good = {path: flip(path) for path in damaged}

    refused = machine("update", "acme", expect=1)

    assert "1.0.0" == machine.running
    assert before == snapshot(machine.current.resolve())
    assert "Traceback" not in refused.stderr
    trouble = machine.product_status()["last_error"]
    assert trouble["code"]
    assert trouble["message"]
    assert "what to do" in refused.stderr
    print("\n" + refused.stderr)

    for path, data in good.items():
        path.write_bytes(data)
    machine("update", "acme")
    assert snapshot(tmp_path / "build" / "1.1.0") == snapshot(machine.current.resolve())


@pytest.mark.parametrize(
    "name",
    ["timestamp.json", "snapshot.json", "acme.releases.json", "acme.stable.json"],
)
def test_in_the_metadata(tmp_path, site, machine, installed, name):
    found = [
        path for path in files(site.public / "metadata") if path.name.endswith(name)
    ]
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)

    refuses_then_heals(tmp_path, machine, [newest])


def test_in_the_manifest(tmp_path, site, machine, installed):
    manifests = [path for path in installed if "targets" in path.parts]
    assert manifests

    refuses_then_heals(tmp_path, machine, manifests)


def test_in_both_bundles(tmp_path, site, machine, installed):
    blobs = [path for path in installed if "blobs" in path.parts]
    assert 2 == len(blobs), "a full bundle and a delta"

    refuses_then_heals(tmp_path, machine, blobs)


def test_in_the_delta_alone_costs_only_the_detour_over_the_full_bundle(
    tmp_path, site, machine, installed
):
    delta = min(
        (path for path in installed if "blobs" in path.parts),
        key=lambda path: path.stat().st_size,
    )
    flip(delta)

    machine("update", "acme")

    assert snapshot(tmp_path / "build" / "1.1.0") == snapshot(machine.current.resolve())
    last = machine.product_status()["last"]
    assert last["bytes_fetched"] >= last["bytes_full"]
