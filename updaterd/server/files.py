"""The repository's files under `/repo/`, with the cache headers each kind needs.

What is named by its hash or its version never changes and may be kept for ever, by
clients and by a CDN; everything else is asked for again each time. A file named by
its hash has the hash as its ETag, so that a download can be resumed at another
replica.
"""

import os
import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

IMMUTABLE = "public, max-age=31536000, immutable"
FRESH = "no-cache"
"""Keep it, but ask each time: the answer is 304 while it is current."""

_BLOB = re.compile(r"blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})")
_VERSIONED = re.compile(r"metadata/\d+\.[^/]+\.json")
_HASHED = re.compile(r"targets/(?:[^/]+/)*([0-9a-f]{64,128})\.[^/]+")


def cache_rules(path: str) -> tuple[str, str | None]:
    """Return `Cache-Control` and, for content-addressed files, the ETag.

    Args:
        path: relative to the repository, with slashes.
    """
    hashed = _BLOB.fullmatch(path) or _HASHED.fullmatch(path)
    if hashed:
        return IMMUTABLE, f'"{hashed[1]}"'
    if _VERSIONED.fullmatch(path):
        return IMMUTABLE, None
    return FRESH, None


class RepositoryFiles(StaticFiles):
    """Static files: GET and HEAD, ranges, conditional requests."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file; hidden ones (half-written, or not ours) do not exist."""
        if any(part.startswith(".") for part in path.split(os.sep)):
            return "", None
        return super().lookup_path(path)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with the file, or 304 when the client has it."""
        control, etag = cache_rules(self.get_path(scope))
        headers = {"cache-control": control, "x-content-type-options": "nosniff"}
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
