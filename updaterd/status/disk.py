# SPDX-License-Identifier: Apache-2.0
"""Does the disk, or the configuration, contradict the journal? `status` must tell.

Apart from `install.stage.look`, whose imports the daemon does without.
"""

import errno
import os
import sys
from collections.abc import Container
from pathlib import PurePath

from updaterd.core.lifecycle import TOUCHED
from updaterd.core.settings import ITSELF, Product
from updaterd.store.records import Records

_CHOOSER = "_updaterd_site"


def abandoned(journal: Records, products: Container[str]) -> list[str]:
    """Return which trials nobody will end, for want of a configured product."""
    return [
        f"{deployment.product}: it was taken out of the configuration while "
        f"{deployment.version} was not proven yet; put it back "
        "until `updaterd update` has settled that"
        for deployment in journal.open_deployments()
        if deployment.product not in products and deployment.state in TOUCHED
    ]


def _never_runs(product: Product) -> str | None:
    """Return that updaterd's own release is installed where none is run from."""
    chooser = sys.modules.get(_CHOOSER)  # the package's, if this is the package
    if product.name != ITSELF or chooser is None:
        return None
    named = os.path.realpath(product.root / "current")
    chosen: str = chooser.choose()
    if os.geteuid() == 0 or named == chosen or not os.path.isdir(named):
        return None  # root never runs it
    where = os.path.join(chooser.PLACES, chooser.daemon())
    return (
        f"{named} is installed, and {chosen} runs: set its root to {where}, and let it "
        "belong to the daemon's user alone"
    )


def at_odds(journal: Records, product: Product) -> str | None:
    """Return how the disk contradicts the journal, if it does: a person was at work.

    Between the two looks a worker may have come further; so look twice.
    """
    fault = None
    for _ in range(2):
        open_ = journal.open_deployment(product.name)
        installed = journal.installed(product.name)
        if installed is None or (open_ and open_.state in TOUCHED):
            return None
        fault = _contradiction(product.root, installed.version)
        if fault is None:
            return _never_runs(product)
    return f"{fault}; `updaterd update {product.name}` looks into it"


def _contradiction(root: PurePath, version: str) -> str | None:
    """Return how the disk contradicts that `version` is installed, if it does.

    Whoever may not look there is told nothing.
    """
    current = os.fspath(root / "current")
    try:
        named = os.path.basename(os.readlink(current))
        os.stat(current)
    except FileNotFoundError:
        fault = "leads nowhere"
    except OSError as error:
        if error.errno != errno.EINVAL:
            return None
        fault = "is not a link any more"
    else:
        if named.removeprefix(".beside-") == version:  # of install/beside
            return None
        fault = f"names {named}"
    return f"{version} was installed, but {current} {fault}"
