# SPDX-License-Identifier: Apache-2.0
"""The repository's files under `/repo/`, with the cache headers each kind needs.

What is named by its hash or its version never changes and may be kept for ever, by
clients and by a CDN; everything else is asked for again each time. A file named by
its hash has the hash as its ETag, so that a download can be resumed at another
replica.
"""

import os
from collections import Counter
from pathlib import Path

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from updaterd.core import layout
from updaterd.core.caching import cache_control
from updaterd.errors import BrokenError
from updaterd.log import get
from updaterd.log.repeats import Repeats
from updaterd.server.client_address import Proxies
from updaterd.server.http.answers import problem

_FULL_RETRY_S = 10
_KEPT = "immutable"
_READ_WHOLE = 4 << 20  # metadata is far smaller


log = get()


def cache_rules(path: str) -> tuple[str, str | None]:
    """Return `Cache-Control` and, for content-addressed files, the ETag.

    Args:
        path: relative to the repository, with slashes.
    """
    digest = layout.digest_in(path)
    return cache_control(path), f'"{digest}"' if digest else None


def is_ours(path: str) -> bool:
    """Tell whether a path can be a repository's file: metadata, target or blob.

    Whatever else lies in its folder (keys, a site's own pages, a backup) was not put
    there to be handed out by us.

    Args:
        path: relative to the repository, with slashes.
    """
    if any(part.startswith(".") for part in path.split("/")):
        return False  # half-written
    return layout.is_file(path)


def public_folder(folder: Path) -> Path:
    """Return the folder to serve: `public/` where a workspace was named.

    A workspace (`updaterd release init`) holds the keys beside what is public.

    Raises:
        BrokenError: there is no such folder, or a workspace without `public/`.
    """
    if not folder.is_dir():
        raise BrokenError(
            f"there is no repository at {folder}",
            do="make one with `updaterd release init`; --repo is its public folder",
            code="no_repository",
        )
    if not ((folder / "release.toml").exists() or (folder / "keys").exists()):
        return folder
    public = folder / "public"
    if not public.is_dir():
        raise BrokenError(
            f"{folder} is where releases are signed, and has no public folder",
            means="nothing is served: the keys are in there",
            do="give --repo the folder that holds metadata, targets and blobs",
            code="no_repository",
        )
    log.warning("workspace_named", named=str(folder), serves=str(public))
    return public


class RepositoryFiles(StaticFiles):
    """Static files: GET and HEAD, ranges, conditional requests.

    Args:
        directory: the repository.
        private: who may read is asked for each answer: no cache that others use may
            keep one.
        most: answers under way; each holds a file open. Nobody gets a further one
            who has as many as are still free: so one address leaves half of them.
        proxies: whose X-Forwarded-For is believed.
    """

    def __init__(
        self,
        *,
        directory: Path,
        private: bool = False,
        most: int = 1000,
        proxies: Proxies | None = None,
    ) -> None:
        super().__init__(directory=directory)
        self._real = os.path.realpath(directory)
        self._private = private
        self._most = most
        self._proxies = proxies or Proxies()
        self._open: Counter[str] = Counter()
        self._count = 0
        self._repeats = Repeats()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, if not too many are being answered."""
        peer = scope["client"][0] if scope["client"] else ""
        client = self._proxies.client_of(peer, scope["headers"])
        if self._open[client] >= self._most - self._count:
            self._repeats.warning(
                "downloads_full",
                alike="",
                most=self._most,
                means="further ones are told to come back (503, Retry-After); nobody "
                "gets more who has as many as are free",
            )
            later = {"retry-after": str(_FULL_RETRY_S), "connection": "close"}
            response = problem(503, "downloads_full", headers=later)
            await response(scope, receive, send)
            return
        self._count += 1
        self._open[client] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._count -= 1
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer one request; read at once what may be replaced meanwhile.

        A file that is opened after it was looked at may be another by then, with
        another length than the answer's head says.

        Raises:
            HTTPException: there is no such file.
        """
        response = await super().get_response(path, scope)
        if (
            not isinstance(response, FileResponse)
            or response.headers["cache-control"].endswith(_KEPT)
            or int(response.headers["content-length"]) > _READ_WHOLE
        ):
            return response
        try:
            body = await anyio.to_thread.run_sync(Path(response.path).read_bytes)
        except FileNotFoundError:
            raise HTTPException(404) from None
        headers = dict(response.headers) | {"content-length": str(len(body))}
        headers.pop("accept-ranges", None)
        return Response(body, response.status_code, headers)

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file of the repository; everything else does not exist.

        A link counts for what it leads to.
        """
        if not is_ours(path.replace(os.sep, "/")):
            return "", None
        real_path, stat = super().lookup_path(path)
        if stat is not None and not is_ours(os.path.relpath(real_path, self._real)):
            return "", None
        return real_path, stat

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with the file, or 304 when the client has it."""
        control, etag = cache_rules(self.get_path(scope))
        if self._private:
            control = f"private, {control.removeprefix('public, ')}"
        headers = {"cache-control": control, "x-content-type-options": "nosniff"}
        if self._private:
            headers["vary"] = "authorization"
        if etag:
            headers["etag"] = etag
        response = FileResponse(
            full_path,
            status_code=status_code,
            stat_result=stat_result,
            headers=headers,
            media_type="application/json"
            if str(full_path).endswith(".json")
            else "application/octet-stream",
        )
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response
