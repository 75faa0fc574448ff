# SPDX-License-Identifier: Apache-2.0
"""A rehearsal: this release's own worker installs something tiny, then updates it.

That its parts load says little: a release whose worker cannot work would run well for
ever, and no fix of it would ever arrive. So a repository is made and signed in a
scratch folder, served on the loopback interface, and the very command that the daemon
spawns is spawned twice: the second time it applies a delta.
"""

import asyncio
import functools
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import updaterd
from updaterd.clocks import wall_clock
from updaterd.core import layout
from updaterd.daemon.workers import Ended, Workers
from updaterd.release import publish, workspace
from updaterd.release.keychange import delegation
from updaterd.store.records import Records
from updaterd.store.schema import open_for_reading

_PRODUCT, _CHANNEL = "rehearsal", "stable"
_TEXT = "all but the first line stays\n" * 2000
# What says nothing about the release: the machine is short of something.
_SHORT = frozenset({
    "busy",
    "cache_full",
    "disk_error",
    "disk_full",
    "no_answer",
    "no_inodes",
    "out_of_memory",
    "worker_killed",
    "worker_silent",
})


class NoVerdictError(Exception):
    """The machine, not the release, keeps it from being told."""


def rehearse() -> None:
    """Let the worker install and update.

    Raises:
        NoVerdictError: there is no telling now.
        ValueError: the worker did not do it; says why.
        OSError: the machine refused a folder, a file or a port.
    """
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # this process ends soon, and asks nobody else
    with tempfile.TemporaryDirectory(prefix="updaterd-self-test-") as folder:
        scene = _Scene(Path(folder))
        with scene.served() as address:
            scene.configure(address)
            for version in ("1", "2"):
                scene.push(version)
                scene.bring(version)


class _Scene:
    """A publisher and a machine in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._app = folder / "app"
        self._now = datetime.fromtimestamp(wall_clock(), UTC)
        settings = workspace.Settings(
            profile="demo", platform=workspace.this_platform(), deltas=1
        )
        workspace.create(folder / "ops", settings)
        self._space = workspace.Workspace(folder / "ops")
        delegation.establish(self._space, [_PRODUCT], [_CHANNEL], self._now)

    def push(self, version: str) -> None:
        """Publish a release: one file, of which the first line changes."""
        tree = self._folder / f"tree-{version}"
        tree.mkdir()
        (tree / "said").write_text(f"{version}\n{_TEXT}")
        space = self._space
        order = publish.Order(
            product=_PRODUCT,
            version=version,
            platform=space.settings.platform,
            deltas=1,
        )
        built = publish.prepare(space, tree, order, now=self._now)
        assert isinstance(built, publish.Built), built
        repository = publish.open_repository(space, self._now)
        catalog = publish.catalog_of(space, repository, _PRODUCT)
        added = publish.enter(catalog, order, built)
        pointer = catalog.pointer(_CHANNEL)
        catalog.point(publish.offer(pointer, version, added.manifest.seq))
        repository.commit()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve what is public on the loopback interface; yield its address."""
        handler = functools.partial(_Quiet, directory=str(self._space.public))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()

    def configure(self, address: str) -> None:
        """Write the machine's configuration."""
        root = self._space.metadata / layout.role_file("root", 1)
        (self._folder / "updaterd.toml").write_text(
            f'[feed]\nurl = "{address}/events"\n'
            f'[trust]\nroot = "{root}"\nrepository = "{address}"\n'
            '[download]\nmin_free = "1MiB"\n'
            f'[products.{_PRODUCT}]\nroot = "{self._app}"\n'
        )

    def bring(self, version: str) -> None:
        """Let the worker bring the machine to a release.

        Raises:
            NoVerdictError: the machine kept it from that.
            ValueError: it did not.
            failure: one of these.
        """
        options = [
            *("--config", str(self._folder / "updaterd.toml"), "--demo"),
            *("--state-dir", str(self._folder / "state")),
            *("--cache-dir", str(self._folder / "cache")),
            *("--runtime-dir", str(self._folder / "run")),
        ]
        workers = Workers(options, niceness=0, command=_command())
        ended = asyncio.run(workers.update(_PRODUCT, trigger="boot"))
        code, why, installed = self._journal()
        output = self._app / "current" / "said"
        is_done = ended.code == 0 and installed == version
        if not is_done or output.read_text()[:1] != version:
            how = f"its worker ended ({ended}) with {installed or 'nothing'} installed"
            raise failure(ended, code, why or how)

    def _journal(self) -> tuple[str, str, str | None]:
        """Return the last error's code and text, and what is installed."""
        connection = open_for_reading(self._folder / "state" / "state.db")
        if connection is None:
            return "", "", None
        with closing(connection):
            records = Records(connection)
            facts, installed = records.product(_PRODUCT), records.installed(_PRODUCT)
        version = installed.version if installed else None
        return facts.last_error_code, facts.last_error, version


def failure(ended: Ended, code: str, why: str) -> NoVerdictError | ValueError:
    """Return what it means that a worker did not bring its machine to a release.

    Args:
        ended: the worker.
        code: of the last error in the journal.
        why: for a person.
    """
    if ended.starved or code in _SHORT:
        return NoVerdictError(why)
    return ValueError(why)


def _command() -> list[str]:
    """Return what starts this very release, wherever it stands."""
    site = str(Path(updaterd.__file__).resolve().parents[1])
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    start += "from updaterd.cli import main; sys.exit(main())"
    return [sys.executable, "-I", "-B", "-c", start, site]


class _Quiet(SimpleHTTPRequestHandler):
    """Logs nothing: the last line on stderr is the self-test's."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""
