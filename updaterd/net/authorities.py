# SPDX-License-Identifier: Apache-2.0
"""Whose certificates are believed: the system's CAs, from its folder and its file.

OpenSSL reads from a hashed folder the one CA that it needs; of the file it keeps all,
which is 2 MiB of a daemon that stays for months (docs/decisions/0012). A company's own
CA may stand only in the file. So the daemon's stream begins with the folder, and takes
the file as well when nobody in the folder vouches for a server.
"""

import contextlib
import os
import re
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import PurePath

from updaterd.core.dataclass import dataclass
from updaterd.errors import BrokenError

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # openssl-rehash(1)
# Where distributions keep all CAs in one file, for those whose OpenSSL names none.
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_UNKNOWN_ISSUER = {2, 18, 19, 20, 21}  # X509_V_ERR_*: nobody known has signed it


@dataclass(frozen=True, slots=True)
class Places:
    """Where CAs are: a hashed folder and a file, None where there is none."""

    folder: str | None
    file: str | None


def system_places() -> Places | None:
    """Return the system's; None when the environment names others, or there are none.

    `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by OpenSSL itself.
    """
    paths = ssl.get_default_verify_paths()
    if {paths.openssl_cafile_env, paths.openssl_capath_env} & os.environ.keys():
        return None
    named = (paths.openssl_cafile, *_FILES)
    file = next((path for path in named if os.access(path, os.R_OK)), None)
    folder = paths.capath if _is_hashed(paths.capath) else None
    return None if folder is None and file is None else Places(folder, file)


def _is_hashed(folder: str | None) -> bool:
    with contextlib.suppress(OSError), os.scandir(folder or os.devnull) as entries:
        return any(_HASHED.fullmatch(entry.name) for entry in entries)
    return False


def tls_context(ca_file: PurePath | None) -> ssl.SSLContext:
    """Return a verifying TLS context: the system's CAs, or only `ca_file`'s.

    Raises:
        BrokenError: `ca_file` cannot be read or holds no certificate.
    """
    places = system_places() if ca_file is None else None
    if places is not None:
        return whole_context(places)
    try:
        context = ssl.create_default_context(cafile=ca_file and str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise BrokenError(
            f"cannot use the CA file {ca_file}: {error}",
            do="point ca_file at a PEM file with your CA's certificate",
            code="ca_file",
        ) from error
    return _for_http(context)


def whole_context(places: Places) -> ssl.SSLContext:
    """Return a context that believes the folder's CAs and the file's."""
    if places.folder is None:
        context = ssl.create_default_context()
    else:
        context = ssl.create_default_context(capath=places.folder)
    if places.file is not None:
        # A file that is damaged is no reason to believe nobody.
        with contextlib.suppress(OSError, ssl.SSLError):
            context.load_verify_locations(cafile=places.file)
    return _for_http(context)


def stream_contexts(
    ca_file: PurePath | None,
) -> tuple[ssl.SSLContext, Callable[[], ssl.SSLContext] | None]:
    """Return the context to begin with, and what makes one that believes more.

    Raises:
        BrokenError: `ca_file` cannot be read or holds no certificate.
    """
    places = system_places() if ca_file is None else None
    if places is None or places.folder is None:
        return tls_context(ca_file), None
    small = whole_context(Places(places.folder, None))
    return small, None if places.file is None else partial(whole_context, places)


def is_unknown_issuer(error: BaseException | None) -> bool:
    """Tell whether a handshake failed for want of a CA."""
    return (
        isinstance(error, ssl.SSLCertVerificationError)
        and error.verify_code in _UNKNOWN_ISSUER
    )


def _for_http(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context
