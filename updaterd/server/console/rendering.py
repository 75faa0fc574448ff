# SPDX-License-Identifier: Apache-2.0
"""Templates, escaped throughout, and the answers that carry them."""

import hashlib
import mimetypes
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import Response

from updaterd import __version__
from updaterd.server.console import figures
from updaterd.server.console.charts import duration

_HERE = Path(__file__).parent
POLICY = "; ".join((
    "default-src 'none'",
    *("script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
    *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
))
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def _number(value: float) -> str:
    """Return a number with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _bytes(value: float) -> str:
    size, units = float(value), ["B", "KB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    digits = 0 if size >= 10 or units[0] == "B" else 1
    return f"{size:.{digits}f} {units[0]}"


def _time(ms: float) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return "-"


def _words(text: object) -> str:
    return str(text).replace("_", " ")


@cache
def assets() -> Mapping[str, tuple[bytes, str, str]]:
    """Return the static files by name: content, media type, and hash."""
    files = {}
    for path in sorted((_HERE / "static").iterdir()):
        data = path.read_bytes()
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        files[path.name] = (data, kind, hashlib.sha256(data).hexdigest()[:16])
    return files


def _asset(name: str) -> str:
    return f"/console/static/{name}?{assets()[name][2]}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "number": _number,
        "size": _bytes,
        "time": _time,
        "words": _words,
        "duration": duration,
    }
    environment.globals |= {
        "asset": _asset,
        "version": __version__,
        "saved": figures.saved,
        "failed": figures.failed,
        "parts": figures.PARTS,
    }
    return environment


def page(
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Return a page as an answer."""
    text = _environment().get_template(template).render(**values)
    return Response(text, status, {**HEADERS, **(headers or {})}, "text/html")
