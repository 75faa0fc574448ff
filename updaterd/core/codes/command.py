# SPDX-License-Identifier: Apache-2.0
"""Codes of the publisher's tools: nothing was published."""

ROWS = """
kit: a kit cannot be made of what its file says | correct the file that is named
announcement_refused: the feed refused the announcement | do what the feed says
bundle_not_listed: the manifest does not list that bundle | name the right manifest
attests_another: an attestation is about something else than the release
  | attest what `release subject` prints
audit_broken: the audit log, or a channel, is not what was written down
  | compare both with a backup; rotate the online key if it may be stolen
bad_attestation: a file is no attestation, or there are too many
  | give an in-toto statement, or one in a DSSE envelope
bad_epoch: SOURCE_DATE_EPOCH is not a time | set it to seconds since 1970, or unset it
bad_destination: the address is not a destination | correct `--to`
bad_change: a change of keys cannot be read | export it again
bad_file_type: a file is neither file, folder nor link | leave it out
bad_key: a key file cannot be used | use another file, or its passphrase
bad_key_uri: a key's address cannot be used | correct it
not_proven: a bundle, when applied, does not make the release | report it
bad_min_updater: `--min-updater` is not a version | correct it
bad_release_file: a file is no release file, or not whole
  | copy it again from where it was made
output_refused: no file can be written where the command was told to
  | name another place
bad_notes: release notes are too long, no UTF-8, or have characters that nobody sees
  | correct the file
bad_pace: there is no such pace, or it makes no sense | name another; correct the file
bad_workspace: the repository's settings cannot be used | correct `release.toml`
change_outdated: the change was made for an older root | export it again
change_pending: a change of keys waits | import or cancel it
concurrent_publish: somebody else published meanwhile | run it again
credential: a credential cannot be used | correct it
damaged_file: a file here is not what its name says | bring it from a copy
delta_worker: a process that makes deltas died | free memory; run it again
disk: the disk refused to read or write | repair it, then run the same command
destination_behind: a destination does not say what the repository says
  | `release sync`, then `release gc`
destination_parted: a destination holds another history than the repository
  | publish from one place; `release recover`
destination_refused: a destination refuses: credentials, rights, name
  | correct what it says
destination_taken: somebody else publishes to the destination
  | see who; `release sync`
destination_unreachable: a destination does not answer
  | repair the way; `release sync`
empty_channel: the channel has no release | push one
empty_tree: there is nothing in the folder | name the right folder
exists: a file or folder of that name exists already | choose another name
floor_above: the floor would be above the release's own seq | choose a lower floor
from_seq_above: the release could be installed over no release that is there
  | choose a lower `--from-seq-min`
no_stepping_stone: machines of the channel could not get to the release
  | offer one that leads there first, or choose a lower `--from-seq-min`
key_unreachable: the token or service that holds a key does not answer
  | check that it is connected and can be reached
keyring: the names of the keys cannot be read | see the file that is named
missing_keys: keys are not here | bring them, or rotate lost ones
no_cloud: the library for buckets is not installed | `pip install "updaterd[cloud]"`
no_change: no change of keys waits | nothing
no_repository: there is no repository | `release init`
no_say: the key does not sign for that role | use another key
no_such_key: there is no such key | `release keys list`
no_such_role: there is no such role | `release status`
nothing_beneath: the channel has no older offer for the machines that the rollout does
  not reach
  | push a release that works; pause, or yank
no_workspace: the folder is not a workspace | `release init`; `--repo`
no_feed: no feed is configured | `--feed`, or `feed` in release.toml
not_a_feed: what answers is not a feed | check `--feed`
not_carried: the tree has what no release carries | leave it out, or `--drop`
not_confirmed: nobody confirmed the step | answer yes, or use `--yes`
not_metadata: the file is not metadata | use the right file
not_compared: what is published there is another repository
  | correct `served_at` in `release.toml`
not_signed: the release file is not signed | `release sign`
narrower: the rollout would reach fewer machines than before
  | `release pause`, `yank`; or `--force`
not_approved: a proposal lacks signatures | `release approve FILE` with another key
not_newest: the channel offers a later release | `release publish` to go back
other_file: the file does not belong to the change of keys that waits | export it again
partial_step_back: only a part of the machines would step back
  | offer the older release to all
passphrase: the passphrase is missing or wrong | give the right one
pin: a token's PIN is missing | set `UPDATERD_PIN`, or `--pin-file`
plan: a rollout's plan cannot be used | correct it; see docs/rollouts.md
platform_missing: the release lacks a platform that the channel has
  | `--tree` for each; `--without` to leave those machines with what they have
release_file_refused: a release file is not what a builder makes, or was changed since
  it was signed | build it again; look at who had it
release_exists: that version is, or was, published with other contents,
  or other options
  | choose a new version
proposal_outdated: the channel has changed since a change was proposed
  | propose it again
proposal_refused: a file is no proposal, or nobody who counts signed it
  | have it made again
repository_behind: what is published is newer than this workspace
  | bring the newest copy of `public/`; `release recover`
repository_unreadable: the repository cannot be read | see the file that is named
numbers_exhausted: no version or seq is left past what was published
  | `release recover` with a smaller --ahead; replace the key if it was stolen
seq_exhausted: no seq is left above that one | rotate the release key, yank that release
seq_mismatch: the version has another seq | leave `--seq` out
seq_not_above: the seq is not above the last one | choose a higher one
signed_for_another_state: other releases were published since a release file was
  signed | sign it again
source_paused: the channel to promote from is paused | resume it; `release publish`
signing_failed: a key did not sign | check the token, the KMS
state_untrusted: the root that is trusted there does not vouch for what is said to be
  published | compare the root; take a fresh copy of `public/`
taken_back: the channel offered the release before, and offers an older one now
  | `release publish` to offer it again
token: the token for announcements cannot be used | check `--token-file`
token_refused: the feed refused the token | use another token
too_few_keys: fewer keys than signatures are asked for | add keys first
too_many_rollouts: more rollouts would be under way than a channel can hold | finish one
tree_changed: the folder changed while it was read | run it again
unknown_matcher: the matcher is not known | see `--help`
unreadable: a file cannot be read | correct its rights
unused_key: no role uses the key | nothing
usage: the command makes no sense as it was typed | see its `--help`
useless_patch: a patch does not make the file | leave it out
weak_passphrase: the passphrase for a new key is too short | choose a longer one
webhook: a webhook of `release.toml` cannot be used | correct it
workspace_exists: there is a repository already | choose another folder
"""
