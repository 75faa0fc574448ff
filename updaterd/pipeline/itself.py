# SPDX-License-Identifier: Apache-2.0
"""updaterd as a product of its own: take over what its guard and a person decided.

Both outlive the journal, which may be moved away or made anew.
"""

from updaterd.core.manifest import parse
from updaterd.core.recovery import STOOD_ASIDE, Link
from updaterd.core.settings import ITSELF
from updaterd.errors import MalformedError
from updaterd.install import stage
from updaterd.pipeline.run import Run
from updaterd.store import guard_note
from updaterd.store.guard_note import Condemned
from updaterd.store.journal import Release

_ASIDE = "stood_aside"
"""In `meta`: a hold was made of the removed `current`; a person may have ended it."""


def recall(run: Run) -> None:
    """Journal what the guard knows, before anything is decided.

    Power cut: some of it is journalled; the next run adds the rest.
    """
    if run.name != ITSELF:
        return
    journal, note = run.journal, guard_note.read(run.services.state)
    disk = stage.look(run.root)
    installed = journal.installed(ITSELF)
    running = disk.running if disk.current is Link.RELEASE else None
    if (
        running is None
        and installed is not None
        and installed.version in note.condemned
    ):
        journal.forget_installed(ITSELF)  # the guard took it away
    failed = journal.failed(ITSELF)
    for condemned in note.condemned.values():
        # not while a person has it tried again
        if condemned.version not in {running, *failed}:
            release = Release(
                condemned.version, condemned.seq or _seq(run, condemned), ""
            )
            reason = f"the guard left it: {condemned.why}"
            journal.block(ITSELF, release, run.note("self_update_failed", reason))
    if running is not None:
        if journal.meta(_ASIDE):
            journal.set_meta(_ASIDE, "")
    elif note.aside and not journal.meta(_ASIDE):
        forget(run, held=True)


def forget(run: Run, *, held: bool) -> None:
    """Journal that nothing is installed; `held`: it stays so until a person ends it.

    Power cut: the hold comes first; without it the next run finds the same.
    """
    if held:
        run.journal.hold(run.name, reason=STOOD_ASIDE)
    run.journal.forget_installed(run.name)
    if held:
        run.journal.set_meta(_ASIDE, "yes")


def _seq(run: Run, condemned: Condemned) -> int:
    """Return a release's place in the order by its listing on disk; 0: unknown."""
    saved = stage.saved_manifests(run.root, [condemned.version])
    try:
        return parse(saved[condemned.version]).seq
    except (KeyError, MalformedError):
        return 0
