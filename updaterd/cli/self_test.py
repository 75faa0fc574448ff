# SPDX-License-Identifier: Apache-2.0
"""`updaterd self-test`: would this release of updaterd work on this machine?

Asked of a new updaterd before it is switched to, and again before the old daemon
makes way for it (docs/owner.md). Each release brings its own: only it knows
what it needs. Nothing is changed, and no server is asked but its own, on the loopback
interface (cli/parts/rehearsal.py).
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from updaterd import __version__
from updaterd.cli.parts.options import SLOW_LOOPS, add_machine_options, settings_from

EXIT_NO_VERDICT = 75  # sysexits(3): EX_TEMPFAIL

# daemon, worker, the worker's child, and what the guard calls
_PARTS = (
    "artifact.codecs",
    "artifact.worker.child",
    "daemon.service",
    "pipeline.by_hand",
    "pipeline.update",
    "self_update",
    "trust.client",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "Loads every part with this machine's Python and libraries, puts the native\n"
        "ones to work, reads the configuration, and lets its own worker install and\n"
        "update a small tree in a scratch folder.\n\n"
        "exit codes:\n"
        "   0  it works here\n"
        "   1  it does not; stderr says why\n"
        "  75  unknown: no space, no memory\n"
    )
    add_machine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try everything; the last line says what does not work."""
    import errno

    from updaterd.cli.parts import rehearsal

    def configuration() -> None:
        # What the machine lacks besides is no fault of a release: `config check`.
        settings_from(arguments)

    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("load its parts", _load),
        ("verify a signature", _verify_a_signature),
        ("unpack a bundle's streams", _unpack),
        ("open a database", _open_a_database),
        ("use the system's certificates", _trust_the_system),
        ("use the configuration", configuration),
        ("install and update", rehearsal.rehearse),
    )
    for task, attempt in steps:
        try:
            attempt()
        except Exception as error:  # noqa: BLE001 # whatever it is, it does not work
            short = getattr(error, "errno", 0) in {
                errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
                errno.EAGAIN, errno.EROFS, errno.EIO,
            }  # fmt: skip
            no_verdict = short or isinstance(error, rehearsal.NoVerdictError)
            why = " ".join(str(error).split()) or type(error).__name__
            how = "cannot tell whether it can" if no_verdict else "cannot"
            print(
                f"self-test: updaterd {__version__} {how} {task}: {why}",
                file=sys.stderr,
            )
            return EXIT_NO_VERDICT if no_verdict else 1
    if not _loops_are_compiled():
        print(f"self-test: warning: {SLOW_LOOPS}", file=sys.stderr)
    print(f"self-test: updaterd {__version__} works here")
    return 0


def _loops_are_compiled() -> bool:
    from updaterd.artifact.apply import loops

    return loops.best().__name__.endswith("compiled")


def _load() -> None:
    for part in _PARTS:
        importlib.import_module(f"updaterd.{part}")


def _verify_a_signature() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    key.public_key().verify(key.sign(b"self-test"), b"self-test")


def _unpack() -> None:
    """Find and use the codecs that every release can decode.

    Raises:
        ValueError: one is not here, or does not work.
    """
    from updaterd.artifact import codecs

    available = codecs.compressions()
    if missing := {"bz2", "xz", "zstd"} - available:
        raise ValueError(f"no {', '.join(sorted(missing))}")
    zstd = codecs.zstd()
    data = b"self-test" * 100
    if zstd is None or zstd.decompress(zstd.compress(data)) != data:
        raise ValueError("zstd returns other bytes")


def _open_a_database() -> None:
    from updaterd.store.schema import open_state

    with tempfile.TemporaryDirectory(prefix="updaterd-self-test-") as folder:
        open_state(Path(folder, "state.db")).close()


def _trust_the_system() -> None:
    from updaterd import net

    net.tls_context(None)
