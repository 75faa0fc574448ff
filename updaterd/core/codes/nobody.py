# SPDX-License-Identifier: Apache-2.0
"""Codes that are nobody's fault: a decision, or how a step went."""

ROWS = """
current: what the channel offers is installed | nothing
installed: the release is installed | nothing
install: a first install is under way | nothing
upgrade: a newer release is under way | nothing
stepping_stone: a release is under way that leads on to the one that is offered
  | nothing
step_back: a step back that the publisher signed is under way | nothing
nothing_offered: the channel is empty | nothing
paused: the publisher paused the channel | nothing
not_understood: the release or channel needs a newer updaterd and is skipped; the
  installed release stays | update updaterd
not_for_platform: no offer was made for this machine's platform
  | nothing; the publisher may add it
not_in_rollout: the rollout does not reach this machine yet | nothing
ahead_of_rollout: what is installed is newer than what the rollout gives to this
  machine | nothing
paced: the release has a pace, signed by its publisher, and this machine's turn has
  not come | nothing: `updaterd update PRODUCT --now` does not wait for it
splay: this machine's splay within the rollout's spread is not over | nothing
held: a hold stops it | `updaterd unhold`, or wait
outside_window: it waits for the maintenance window | nothing
metered: the network is metered, and the download is large
  | nothing; another network, `download.metered`, or `updaterd update PRODUCT --now`
on_battery: the machine runs on battery
  | nothing; plug it in, or `updaterd update PRODUCT --now`
waits_for_request: a release is ready, and is activated when the application is started
  anew or asks for it
  | start it by `updaterd-launch`, or `updaterd update PRODUCT --now`
waits_for_exit: a release is ready, and is activated when the application has ended
  | end the application, or `updaterd update PRODUCT --now`
waits_for_window: a release is ready, and is activated in the maintenance window
  | nothing, or `updaterd update PRODUCT --now`
postponed: a release is ready, and somebody asked to wait | nothing: it has an end
inhibited: a release is ready, and the application asks to wait
  | nothing: at most until `schedule.max_deferral` is over
blocked: the release failed or was rolled back here
  | wait for a newer release, or `updaterd update PRODUCT --retry`
system_stopping: the machine, or updaterd, was stopped during a trial
  | nothing: the trial is repeated at the next start
removed: a person removed the product from this machine
  | `updaterd unhold PRODUCT` lets it come again
superseded: another release came before this one was done | nothing
resumed: a deployment that was cut short went on | nothing
on_disk: its tree was on disk already | nothing
adopted: the tree was made of files that were on disk already | nothing
adopting: an application that others installed was taken over | nothing
found_on_disk: the journal took over what is on disk | nothing
current_restored: `current` was missing and was made again | nothing
nothing_on_disk: no release is left on disk; a person ordered a new installation
  | nothing
left_for_package: somebody removed `current` of updaterd itself: the packaged release
  runs | `updaterd unhold updaterd`
rollout_dwelling: a step of a rollout goes well and is not over yet | nothing
rollout_too_few: too few machines have told how a release ended there
  | wait; see the plan
rollout_unsure: there are too few machines, or too many failures, to tell whether a
  release is good | wait; see the plan
rollout_excess: more machines report a release than a rollout can have reached
  | see who may report (`serve --reports`); step by hand
rollout_quiet: more than half of the machines that a rollout reached say nothing
  | look at some of them; wait, or step by hand; or give the plan `silent_permille`
rollout_due: a step of a rollout went well: more machines are next | nothing
rollout_done: a release went well on all machines of its plan | nothing
rollout_failing: a release fails on more machines than its plan allows: it was halted
  | publish a release that works
rollout_silent: more machines of a step are silent than its plan allows: it was halted
  | look at some of them; `release resume`, or publish a release that works
http_204: the feed asked this machine not to connect again
  | nothing: the machine asks again at its next poll
"""
