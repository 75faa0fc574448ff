# SPDX-License-Identifier: Apache-2.0
"""Codes that are this machine's: its owner acts."""

ROWS = """
error: an error without a code of its own | do what the text says
transient: an attempt failed, and a later one may work | nothing: tried again
broken: updaterd cannot go on until a person repairs something | do what the text says
api_unreachable: updaterd does not answer applications here
  | `systemctl enable --now updaterd-api.socket`
api_refused: updaterd refused what an application asked for | do what the text says
bad_code: what was typed is not an enrolment code | compare it with what you got
enrolment_url: it is not known where to enrol | set `enrolment.url`
enrolment_refused: the server refused to enrol the machine | do what the text says
enrolment_unwritable: the machine's token cannot be kept
  | let the daemon's user own the state directory
config: the configuration cannot be used | correct the line that is named
busy: another updaterd process works on this product | wait for it to end
machine_refused: the operating system refused | look at space, rights and `dmesg`
disk_full: there is no room | free space on the file system that is named
disk_error: the disk refused to read or write | look at `dmesg` and the disk
no_inodes: there is no room for more files | delete files on that file system
not_writable: the daemon's user may not write there
  | `updaterd config grant --write`, then restart updaterd
unsafe_command: others could change a hook or a health command: it is not run
  | let only root, or the daemon's user, write it and its directories
unsafe_config: others could change the configuration: it is not used
  | let only root, or the daemon's user, write it and its directories
in_the_way: something that is not updaterd's, such as a mounted file system, is where a
  release must be replaced | unmount it, or move it away
unsafe_staging: others could change a release while it is built
  | correct the rights of the product's root
cache_full: there is no room for metadata or bundles | free space below the cache
cache_unusable: the cache or the store of metadata cannot be used
  | let the daemon's user own it
state_unusable: the state directory or its database cannot be used
  | let the daemon's user own it; see the text
journal_refused: the journal cannot be written | free space in the state directory
inbox_failed: the journal could not store an event | free space; it comes again
activation_failed: the disk refused to move `current` | look at the disk
current_not_a_link: `current` is not a link, and updaterd did not make it
  | move it away, or `verify --repair`
current_is_foreign: `current` points outside `releases` | point it back
link_not_allowed: a release has a link out of it that the owner does not allow
  | set `products.NAME.outside_links`, if you want it
attestation_key: the key that attestations have to be signed with cannot be used
  | correct `products.NAME.require_attestation`
attestation_missing: a release lacks the attestation that the owner requires
  | ask the publisher to push with `--attest`; see `require_attestation`
attestation_partial: a release has links out of it or special rights, which no
  attestation is about | ask for a release without them; see `require_attestation`
attestation_untrusted: no key that the owner named has signed a release's attestation
  | ask the publisher which key the builder has
mode_not_allowed: a release asks for a right that the owner does not allow: setuid,
  setgid, sticky, or writable by others
  | set `products.NAME.special_modes`, if you want it
mode_refused: the system forbids a mode that the owner allows
  | write a drop-in for the unit with `RestrictSUIDSGID=no`
label_in_use: the active release is not what was signed under its name: it is damaged,
  or its publisher gave the name to another tree
  | `updaterd verify PRODUCT --repair`; publish the other tree as a version of its own
not_a_copy: what `update --from` names is no copy of a repository's files
  | name the folder that has `metadata/`
not_removable: updaterd does not remove itself | remove its package
not_stopped: a unit of a product that is to be removed does not stop
  | see `systemctl status` of it; the next run goes on
staged_tree_gone: a staged release vanished from disk before it was active
  | nothing: it is built again
not_staged: the release is not on disk | `updaterd update`
nothing_to_return_to: there is no earlier release on disk
  | wait for a release that works
nothing_to_verify: nothing is installed | `updaterd update`
previous_damaged: the earlier release is not as it was signed
  | `updaterd verify PRODUCT --repair`
rollback_unhealthy: the release that was rolled back to is not healthy either
  | look at its units; `updaterd rollback PRODUCT`
hook_failed: a hook failed, or took too long
  | run the hook by hand, as the daemon's user
restart_refused: systemd refused to restart the units: it has no grant, or knows no
  such unit | `updaterd config grant --write`; see the text
out_of_memory: the kernel killed a process of updaterd because memory was short
  | free memory, or raise `MemoryMax=` of the unit
worker_killed: the worker or the bundle opener was killed, perhaps by a person
  | `journalctl -k`
no_such_command: a configured command does not exist, or cannot be run
  | correct it, or its rights
worker_died: the worker ended early | read the worker's lines in the journal
no_answer: the bundle opener ended without an answer
  | look at the disk and `dmesg`; it is tried again
worker_silent: the bundle opener made no progress, or did not end in time
  | look at the disk
worker_left_others: the bundle opener left processes that cannot be ended
  | restart the machine; report it, with the bundle
cage_open: the bundle opener is confined less than it could be
  | use a kernel of 5.13 or newer with Landlock enabled, on x86-64 or aarch64
cage_not_built: the bundle opener could not start, or not be confined
  | see the text; `updaterd config check`
bad_old_files: an installed file was changed, or cannot be read
  | `updaterd verify PRODUCT --repair`
bad_root: the first root cannot be used | install `trust.root` again
no_such_user: the daemon's user does not exist
  | install the package, or make it with systemd-sysusers
not_granted: the rights could not be written or applied | run it as root; see the text
tree_gone: the journal says that a release is installed, and it is not on disk
  | mount its file system; if you deleted everything, `updaterd update PRODUCT
  --retry`
no_such_product: the configuration has no such product | see the configuration
no_such_zone: the time zone is not known here | correct it, or install tzdata
clock_suspect: the clock shows an impossible time | set the clock
ca_file: the CA file cannot be used | correct `ca_file`
headers_file: the file of headers cannot be used | correct it, or its rights
bad_header: a configured header cannot be sent | correct it
insecure_url: an address is not https | use https
bad_url: an address is not valid | correct it
unsafe_root: others could write in a product's root, or another product has it
  | choose another root, or correct its owner and mode
grant_root: no grant can name this product's root | choose another root
grant_unit: no grant can name this unit | correct `units`
missing_extra: a part of updaterd is not installed | install the extra that is named
demo_failed: the demo could not go on | do what the text says
demo_repository: the repository is signed with keys that anybody has
  | publish from a `prod` repository
"""
