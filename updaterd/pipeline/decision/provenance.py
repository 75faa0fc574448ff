# SPDX-License-Identifier: Apache-2.0
"""The attestation that an owner requires of a release, before anything is fetched."""

import hashlib

from updaterd.core import layout
from updaterd.core.attestation import Attestation
from updaterd.core.manifest import Manifest
from updaterd.errors import BrokenError, TransientError, UpdaterError
from updaterd.net import MIN_RATE
from updaterd.pipeline.run import Run


def check(run: Run, manifest: Manifest) -> None:
    """Check that a release has the attestation which its owner requires, if any.

    Raises:
        BrokenError: it has none that is signed by the owner's key; it has more than
            any attestation is about; or that key cannot be used.
        TransientError: the attestation cannot be fetched now.
    """
    required = run.product.require_attestation
    if required is None:
        return
    from updaterd.trust import attested  # noqa: PLC0415 - few owners require one

    key = attested.read_key(required.key)
    _check_covered(run, manifest)
    tree = manifest.tree
    faults = []
    for entry in manifest.attestations:
        if entry.kind != required.predicate_type:
            continue
        raw = _fetch(run, entry)
        fault = attested.fault(raw, entry, tree=tree, key=key)
        if not fault:
            return
        faults.append(f"{entry.sha256[:12]}: {fault}")
    release = f"{manifest.product} {manifest.version}"
    where = f"products.{run.name}.require_attestation"
    if not faults:
        raise BrokenError(
            f"{release} has no attestation of the type {required.predicate_type}",
            means=f"its publisher attached none, and {where} of this machine asks for "
            "it: nothing was installed",
            do="ask the publisher for a release that was pushed with --attest, or take "
            "the requirement out of the configuration",
            code="attestation_missing",
        )
    raise BrokenError(
        f"{release} has no attestation of the type {required.predicate_type} that "
        f"{required.key} vouches for ({'; '.join(faults)})",
        means="its publisher attached what another builder made, or the builder's key "
        "has changed: nothing was installed",
        do=f"ask the publisher which key the builder has; {where}.key names the one "
        "that counts here",
        code="attestation_untrusted",
    )


def _check_covered(run: Run, manifest: Manifest) -> None:
    """Check that the tree id, which builders attest, says all that could do harm.

    Raises:
        BrokenError: there are links out of the release, or special rights, beside it.
    """
    more = [item.path for item in manifest.attributes.outside]
    more += [item.path for item in manifest.attributes.special]
    if more:
        raise BrokenError(
            f"{manifest.product} {manifest.version} has links out of it or special "
            f"rights ({more[0]!a:.80}), which no attestation is about",
            means="whoever has the release key could have added them to what the "
            "builder made: nothing was installed",
            do="ask the publisher for a release without them, or take "
            f"products.{run.name}.require_attestation out of the configuration",
            code="attestation_partial",
        )


def _fetch(run: Run, entry: Attestation) -> bytes:
    """Return an attestation from the first server that has it right.

    Raises:
        TransientError: no server could give it.
    """
    failure: UpdaterError | None = None
    fetcher = run.services.fetcher
    for base in run.services.bases:
        url = f"{base.rstrip('/')}/{layout.blob(entry.sha256)}"
        try:
            raw = fetcher.get(
                url,
                limit=entry.length,
                deadline_s=fetcher.deadline_s + entry.length / MIN_RATE,
                length=entry.length,
            )
        except TransientError as error:
            failure = failure or error
            continue
        if hashlib.sha256(raw).hexdigest() == entry.sha256:
            return raw
    raise failure or TransientError(
        f"every server has other bytes than the signed attestation {entry.sha256[:12]}",
        means="nothing was installed; what runs goes on",
        do="the publisher's `updaterd release verify` says what is damaged",
        code="hash_mismatch",
    )
