# SPDX-License-Identifier: Apache-2.0
"""The server's own certificate: renewed while it serves, and watched for its end.

Certificates last for weeks and streams for ever, so a renewed file is taken for new
connections as it is; nobody has to restart anything. One that is about to end is
said in the log before the fleet finds out.
"""

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

from updaterd.log import get

_SOON = dt.timedelta(days=14)

log = get()


class Certificate:
    """The certificate chain and its key: files that another program renews.

    Args:
        chain: the server's certificate first, in PEM.
        key: its key.
        now: seconds since 1970.
    """

    def __init__(self, chain: Path, key: Path, *, now: Callable[[], float]) -> None:
        self._chain = chain
        self._key = key
        self._now = now
        self._stamp = self._read_stamps()
        self._reported = ""

    def watch(self, context: ssl.SSLContext) -> None:
        """Load a renewed certificate; log one that is unusable or about to expire."""
        stamp = self._read_stamps()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reported = ""
            self._take(context)
        self._warn()

    def _take(self, context: ssl.SSLContext) -> None:
        try:
            # one that does not fit its key must not get halfway into the real one;
            # without a passphrase OpenSSL would ask the terminal, and all would wait
            for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                target.load_cert_chain(self._chain, self._key, password="")
        except (OSError, ssl.SSLError) as error:
            # certificate and key are replaced one after the other: asked again then
            log.warning("certificate_refused", path=str(self._chain), error=str(error))
        else:
            log.info("certificate_taken", path=str(self._chain))

    def _warn(self) -> None:
        from cryptography import x509  # noqa: PLC0415  8 MiB that only TLS needs

        try:
            certificate = x509.load_pem_x509_certificate(self._chain.read_bytes())
            ends = certificate.not_valid_after_utc
            lifetime = ends - certificate.not_valid_before_utc
        except (OSError, ValueError, x509.InvalidVersion):
            return  # OpenSSL judges what is served; this only tells when it ends
        remaining = ends - dt.datetime.fromtimestamp(self._now(), dt.UTC)
        state = ""
        fields = {"path": str(self._chain), "ends": ends.isoformat()}
        if remaining <= dt.timedelta(0):
            state = "expired"
            if self._reported != state:
                log.error("certificate_expired", **fields)
        elif remaining < min(_SOON, lifetime / 3):
            state = "soon"
            if self._reported != state:
                log.warning("certificate_expires", **fields)
        self._reported = state

    def _read_stamps(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for path in (self._chain, self._key):
            try:
                stat = path.stat()
                stamps.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)
