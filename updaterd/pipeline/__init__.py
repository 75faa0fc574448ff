# SPDX-License-Identifier: Apache-2.0
"""One product through every stage, once, and what to do about a run that died.

    order.py     the order of the stages: trust, decide, acquire, activate
    acquire.py   bundles into a whole tree on disk, path by path down to the full one
    trial.py     activation, restart, health, and the way back
    resume.py    what a dead run left: `core/recovery` decides, this performs
    earlier.py   which releases on disk have run here: where a roll back can lead
    rollback.py  `rollback`: back to one of them, by hand
    restore.py   `verify --repair`: the installed tree, by hand
    services.py  what all of them are given: clock, journal, network, units

The only place that knows the order. Nothing here decides: `core/planner` and
`core/recovery` do, and this performs what they say, journalling before each step.
"""
