# SPDX-License-Identifier: Apache-2.0
"""Codes that are the release's own fault: it is blocked on this machine."""

ROWS = """
rejected: the release cannot be used on this machine | publish another release
malformed: a file of the release does not have the format that it should have
  | publish again
unhealthy: its health check or its units failed during the trial
  | see the reason; publish a release that works
restart_failed: its units did not start | `systemctl status UNIT`; read the unit's log
self_test_failed: the owner's self-test refused it | publish a release that works
interrupted_in_probation: updaterd died during the trial
  | nothing: tried again, later each time
rebooted_in_probation: the machine restarted during the trial
  | nothing: tried again, later each time
self_update_failed: the guard put an older release of updaterd back
  | publish a release of updaterd that works
rolled_back_by_hand: somebody ran `updaterd rollback`
  | `updaterd update --retry`, or wait for a newer release
no_usable_bundle: none of its bundles can be used here
  | `release verify --deep`; publish again; update updaterd
bad_bundle: a file is not a bundle | publish again
bad_output: a bundle does not make the files that were signed | publish again
wrong_tree: a bundle does not make the tree that was signed | publish again
worker_crashed: the bundle opener crashed | publish again; report it
cpu_limit: a bundle takes too long to apply | publish again
memory_limit: a bundle needs more memory than it may have | publish again
too_large: a file or document is longer than its format allows
  | publish a smaller release
unknown_codec: a bundle is compressed in a way this updaterd does not know
  | update updaterd
newer_bundle: a bundle has a newer format | update updaterd
newer_schema: a document has a newer format; a release or channel in it is passed over
  | update updaterd
min_updater: the release needs a newer updaterd | update updaterd first
bad_path: a file has a name that no release may have | publish without it
bad_link: a link leads out of the release | publish without it
too_deep: a file is in more directories than a machine can keep open
  | publish a flatter tree
bad_mode: a folder cannot be read by its owner, or written by others
  | publish it with another mode
bad_name: a name is not valid | correct the name
bad_version: a version is not valid | correct the version
bad_window: a maintenance window is not valid | correct `schedule.window`
"""
