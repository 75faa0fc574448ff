# SPDX-License-Identifier: Apache-2.0
"""`updaterd bundle`: look into a bundle, or make its tree, by hand."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from updaterd.release.bundles.inspection import Inspected

_EXPLAINED = """\
Signatures are not checked: this is for looking, not for installing. Manifests lie in
a repository under targets/PRODUCT/releases/VERSION/, bundles under blobs/.

examples:
  updaterd bundle inspect BUNDLE
  updaterd bundle inspect BUNDLE --manifest MANIFEST --json
  updaterd bundle apply BUNDLE NEW_DIR --manifest MANIFEST --old OLD_TREE
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = _EXPLAINED
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    inspect = actions.add_parser("inspect", help="say what a bundle is")
    inspect.add_argument("file", type=Path, metavar="FILE", help="the bundle")
    inspect.add_argument(
        "--manifest", type=Path, metavar="FILE", help="of a release that lists it"
    )
    inspect.add_argument("--json", action="store_true", help="for scripts")
    apply = actions.add_parser(
        "apply", help="make its tree in a new directory, confined as on a machine"
    )
    apply.add_argument("file", type=Path, metavar="FILE", help="the bundle")
    apply.add_argument(
        "folder", type=Path, metavar="NEW_DIR", help="where the tree is made"
    )
    apply.add_argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="of the release that it makes",
    )
    apply.add_argument(
        "--old", type=Path, metavar="DIR", help="tree that a delta starts from"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    return _apply(arguments) if arguments.action == "apply" else _inspect(arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict, replace

    from updaterd.core.manifest import Delta
    from updaterd.release.bundles import inspection

    bundle = inspection.inspect(arguments.file)
    document = asdict(bundle)
    if arguments.manifest is not None:
        manifest = inspection.read_manifest(arguments.manifest)
        blob = inspection.listed_in(manifest, bundle)
        edge = blob if isinstance(blob, Delta) else None
        bundle = replace(bundle, codec=blob.codec)  # a bundle cannot always say it
        document |= {
            "codec": blob.codec,
            "product": manifest.product,
            "platform": manifest.platform,
            "min_updater": manifest.min_updater,
            "from": edge and edge.from_version,
            "from_tree": edge and edge.from_tree,
            "to": edge.to_version if edge else manifest.version,
            "to_tree": edge.to_tree if edge else manifest.tree,
        }
    if arguments.json:
        print(json.dumps({"schema": 1, **document}))
        return 0
    _show(bundle)
    if arguments.manifest is not None:
        if document["from"]:
            print(f"from {document['from']}: tree {document['from_tree']}")
        print(
            f"to {document['product']} {document['to']} ({document['platform']}): "
            f"tree {document['to_tree']}"
        )
    return 0


def _show(bundle: "Inspected") -> None:
    print(f"{bundle.kind} bundle, {bundle.length:,} bytes, sha256 {bundle.sha256}")
    print(f"codec {bundle.codec}; needs {', '.join(bundle.needs) or 'no decompressor'}")
    for stream in bundle.streams:
        print(
            f"  {stream.name:<8} {stream.codec:<6} {stream.packed:>12,} of "
            f"{stream.raw:,} bytes"
        )


def _apply(arguments: argparse.Namespace) -> int:
    """Make the tree.

    Raises:
        BrokenError: the directory exists.
        OSError: it cannot be made.
        UpdaterError: the bundle does not make the tree; nothing is left of it.
    """
    from updaterd.errors import BrokenError
    from updaterd.files import deletion
    from updaterd.release import tree
    from updaterd.release.bundles import inspection

    manifest = inspection.read_manifest(arguments.manifest)
    try:
        arguments.folder.mkdir(mode=0o700)
    except FileExistsError:
        raise BrokenError(
            f"{arguments.folder} exists",
            means="nothing was unpacked",
            do="name a directory that does not exist yet",
            code="exists",
        ) from None
    try:
        old_files = tree.scan(arguments.old) if arguments.old else ()
        report = inspection.apply(
            arguments.file, manifest, arguments.folder, arguments.old, old_files
        )
    except BaseException:
        deletion.delete_tree(arguments.folder)
        raise
    print(
        f"{arguments.folder} is {manifest.product} {manifest.version}, tree "
        f"{manifest.tree}: {len(manifest.files)} files, {report.bytes_written:,} bytes "
        f"written, {report.cpu_s:.2f} s of CPU, {report.peak_rss:,} bytes of memory"
    )
    return 0
