# SPDX-License-Identifier: Apache-2.0
"""Opens the store of reports that an address names, by its scheme."""

from pathlib import Path
from urllib.parse import urlsplit

from updaterd.errors import BrokenError
from updaterd.log import redact
from updaterd.server.reports.contract import Keeping, ReportStore
from updaterd.server.reports.sqlite import SqliteReports

EMBEDDED = "reports.db"


def embedded(url: str, state: Path) -> Path | None:
    """Return the file of an embedded store; None where it is a server's."""
    if not url:
        return state / EMBEDDED
    parts = urlsplit(url)
    is_file = parts.scheme == "sqlite" and parts.path.startswith("/")
    return Path(parts.path) if is_file else None


def open_store(url: str, *, state: Path, keeping: Keeping) -> ReportStore:
    """Return the store that an address names.

    Args:
        url: `postgresql://USER@HOST/DATABASE` or `sqlite:///ABSOLUTE/PATH`; empty for
            the embedded one in the state directory.
        state: the server's own directory.
        keeping: how long what is kept.

    Raises:
        BrokenError: an unknown kind of address, one that cannot be read, or a file
            that cannot be used.
    """
    file = embedded(url, state)
    if file is not None:
        return SqliteReports(file, keeping=keeping)
    if not url.startswith(("postgresql://", "postgres://")):
        raise BrokenError(
            f"no reports are kept at {redact(url)!r:.200}",
            do="use postgresql://USER@HOST/DATABASE or sqlite:///ABSOLUTE/PATH",
            code="reports_url",
        )
    try:
        from updaterd.server.reports.postgres import (  # noqa: PLC0415  not for all
            PostgresReports,
        )
    except ImportError as error:
        raise BrokenError(
            f"reports in PostgreSQL need a package that is missing: {error.name}",
            do="pip install 'updaterd[postgres]'",
            code="extra_missing",
        ) from error
    try:
        return PostgresReports(url, keeping=keeping)
    except ValueError as error:
        raise BrokenError(
            f"the address of the store of reports cannot be read: {error}",
            do="write it as postgresql://USER@HOST/DATABASE, and what is special in a "
            "password as %XX",
            code="reports_url",
        ) from error
