# SPDX-License-Identifier: Apache-2.0
"""python-tuf, loaded without what a machine never uses of it.

A look at the repository is one short process, and most of its CPU is imports. Of those
of python-tuf, half are for nothing here:

- securesystemslib tries every service that could sign (AWS, Vault, PKCS#11, ...), and
  loads whichever library happens to be installed, with all that it needs. A machine
  verifies and never signs. Their absence is what securesystemslib is made for.
- python-tuf loads its default fetcher, and that urllib3. Ours is always given
  (`updater.Source`), so the default one is never made.

Only for a process that will do nothing but follow a repository: whoever signs needs
the services. So it is called by the commands that do that, not when this is imported.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import NoReturn

_SERVICES = (
    "asn1crypto",
    "azure",
    "boto3",
    "botocore",
    "google.cloud",
    "hvac",
    "pkcs11",
    "sigstore",
    "tkey_device_signer",
)
"""Optional libraries of securesystemslib's signers."""
_FETCHER = "tuf.ngclient.urllib3_fetcher"


class _NoFetcher:
    """Stands for python-tuf's default fetcher."""

    def __init__(self, *_: object, **__: object) -> NoReturn:
        raise NotImplementedError("updaterd brings its own fetcher")


def load() -> None:
    """Load python-tuf, unless that was done; leave no trace in what is loaded later."""
    if "tuf.ngclient" in sys.modules:
        return
    absent = [name for name in _SERVICES if name not in sys.modules]
    fetcher = ModuleType(_FETCHER)
    vars(fetcher)["Urllib3Fetcher"] = type("Urllib3Fetcher", (_NoFetcher,), {})
    sys.modules[_FETCHER] = fetcher
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # None: absent
    try:
        import_module("tuf.ngclient")
    finally:
        for name in absent:
            del sys.modules[name]
