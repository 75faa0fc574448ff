# SPDX-License-Identifier: Apache-2.0
"""One product through every stage, once, and what to do about a run that died.

    update.py    the order of the stages: trust, decide, acquire, activate
    look.py      one look at the repository: facts.py, the planner, notes.py
    tree/        bundles, and what is on disk already, into a whole tree
    ready.py     may what is staged be activated now?
    trial.py     activation, restart, health, and the way back
    recover.py   what a dead run left: `core/recovery` decides, this performs
    rollback.py  back to a release that has run here (earlier.py), as ordered
    by_hand.py   `rollback` and `verify --repair`
    run.py       what all of them are about: one product on this machine
    machine.py   what the machine gives: clock, journal, network, units

The only place that knows the order. Nothing here decides: `core/planner` and
`core/recovery` do, and this performs what they say, journalling before each step.
"""
