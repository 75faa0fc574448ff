# SPDX-License-Identifier: Apache-2.0
"""The trust layer without product policy, for TUF's public conformance suite.

    client = make_client(metadata_dir, metadata_url, targets_url, target_dir, root)
    client.refresh()
    client.download("path/of/target")

Everything the daemon relies on is in the way: its fetcher with deadlines and limits,
its cache, its errors. See tests/conformance/README.md.
"""

from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from tuf.api import exceptions
from tuf.api.metadata import TargetFile

from updaterd import durable
from updaterd.errors import RejectedError, UpdaterError
from updaterd.net import Fetcher
from updaterd.system import locks
from updaterd.trust.failures import explain
from updaterd.trust.updater import Engine, Source


class ConformanceClient:
    """One TUF client; each `refresh` starts a new update of its metadata.

    Args:
        metadata_dir: the cache; `root_history/` and the roles are in it.
        metadata_url: address of the metadata.
        targets_url: address of the targets; None: it will not be asked.
        target_dir: where `download` puts them.
        bootstrap_root: bytes of the root to start from.
        now: what time it is; None: what the machine's clock says.
    """

    def __init__(  # noqa: PLR0913
        self,
        metadata_dir: Path,
        metadata_url: str,
        targets_url: str | None,
        target_dir: Path | None,
        bootstrap_root: bytes,
        *,
        now: datetime | None = None,
    ) -> None:
        self._cache = metadata_dir
        self._url = metadata_url.rstrip("/") + "/"
        self._targets = targets_url
        self._into = target_dir
        self._bootstrap = bootstrap_root
        self._now = now
        self._engine: Engine | None = None
        self._fetcher = Fetcher()
        self._source = Source(self._fetcher, self._url)

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def refresh(self) -> None:
        """Bring the top-level roles up to date (TUF specification 5.3 to 5.6).

        Raises:
            UpdaterError: they cannot be fetched, or do not verify.
            explain: one of these.
        """
        self._cache.mkdir(parents=True, exist_ok=True)
        self._source = Source(self._fetcher, self._url)
        with locks.hold(self._cache / "lock", subject="trust", wait=True):
            try:
                engine = Engine(
                    self._cache,
                    self._bootstrap,
                    url=self._url,
                    source=self._source,
                    now=lambda _: self._now,
                )
                engine.refresh()
            except Exception as error:  # python-tuf's errors have no common root
                raise explain(error, name=self._source.name) from error
        self._engine = engine

    def download(self, target: str) -> Path:
        """Return the path of a target, fetched and verified (5.7).

        Raises:
            RejectedError: no role signed such a target.
            UpdaterError: it cannot be fetched, or is not what was signed.
            explain: one of these.

        Power cut: the file is whole or absent.
        """
        if self._engine is None:
            self.refresh()
        assert self._engine is not None
        assert self._into is not None
        try:
            info = self._engine.get_targetinfo(target)
            if info is None:
                raise RejectedError(  # noqa: TRY301 # as every other failure
                    f"nobody signed {target}", code="no_such_target"
                )
            path = self._into / quote(target, safe="")
            if _is_there(path, info):
                return path
            folder, slash, name = target.rpartition("/")
            if self._engine.root.consistent_snapshot:
                name = f"{next(iter(info.hashes.values()))}.{name}"
            url = f"{(self._targets or '').rstrip('/')}/{folder}{slash}{name}"
            data = self._fetcher.get(url, limit=info.length)
            info.verify_length_and_hashes(data)
        except UpdaterError:
            raise
        except exceptions.LengthOrHashMismatchError as error:
            raise explain(error, name=target) from error
        except Exception as error:
            raise explain(error, name=self._source.name) from error
        self._into.mkdir(parents=True, exist_ok=True)
        durable.write_file(path, data)
        return path


def _is_there(path: Path, target: TargetFile) -> bool:
    try:
        target.verify_length_and_hashes(path.read_bytes())
    except (OSError, exceptions.LengthOrHashMismatchError):
        return False
    return True


def make_client(
    metadata_dir: str | Path,
    metadata_url: str,
    targets_url: str | None,
    target_dir: str | Path | None,
    bootstrap_root: bytes,
) -> ConformanceClient:
    """Return a client made of the daemon's own trust layer."""
    return ConformanceClient(
        Path(metadata_dir),
        metadata_url,
        targets_url,
        Path(target_dir) if target_dir is not None else None,
        bootstrap_root,
    )
