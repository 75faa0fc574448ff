# SPDX-License-Identifier: Apache-2.0
"""Every code of an error, a reason or a decision: whose fault, meaning, remedy.

A code is written where it is raised, as a literal, and stands here once. The table in
docs/codes.md is made from here (docs/generate.py); tests/unit/core/test_codes.py
holds that none is missing and none unused. Who only raises one need not load this.

A row is `code: meaning | what to do`, and goes on in the indented lines after it.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class Kind(StrEnum):
    """Whose fault a code is: who has to act."""

    RELEASE = "release"
    MACHINE = "machine"
    NETWORK = "network"
    PUBLISHER = "publisher"
    SERVER = "server"
    COMMAND = "command"
    NOBODY = "nobody"


ABOUT = {
    Kind.RELEASE: "The release itself: it is blocked on this machine until it is "
    "announced anew or a newer one comes",
    Kind.MACHINE: "This machine: its owner acts, and no release is blocked",
    Kind.NETWORK: "What is between the machine and the servers: tried again",
    Kind.PUBLISHER: "The repository and what its keys signed: the publisher acts",
    Kind.SERVER: "The feed server: its answers and its own trouble",
    Kind.COMMAND: "The publisher's tools: nothing was published",
    Kind.NOBODY: "Nobody: a decision, or how a step went",
}


@dataclass(frozen=True, slots=True)
class Code:
    """What a code says.

    Attributes:
        kind: whose fault it is.
        meaning: what happened, for the owner of the machine.
        remedy: what to do.
    """

    kind: Kind
    meaning: str
    remedy: str


def find(code: str) -> Code | None:
    """Return what is known about a code; None for one that this version does not have.

    `http_404` and its like are one row.
    """
    known = table()
    return known.get(code) or known.get("http_NNN" if code[:5] == "http_" else "")


def blocks(code: str) -> bool:
    """Tell whether a failure keeps the release away: only the release's own does.

    One that this version does not know (it stands in an older journal) does too.
    """
    row = find(code)
    return row is None or row.kind is Kind.RELEASE


# Published incompletely, or asked for by a wrong name: nobody was deceived.
NOT_THERE = frozenset({
    "metadata_missing",
    "no_such_channel",
    "no_such_release",
    "no_such_target",
    "stale_mirror",
})
OF_TRUST = frozenset({"bad_root", "demo_repository"})  # this machine's, and no trust


def is_trust(code: str) -> bool:
    """Tell whether a code says that what was signed must not be believed."""
    row = find(code)
    signed = row is not None and row.kind is Kind.PUBLISHER
    return (signed and code not in NOT_THERE) or code in OF_TRUST


def remedy(code: str) -> str:
    """Return what to do about a code; "" for one that this version does not have."""
    row = find(code)
    return row.remedy if row else ""


@cache
def table() -> dict[str, Code]:
    """Return every code with its row, kind by kind."""
    return {
        name: Code(kind, meaning.strip(), remedy.strip())
        for kind, text in _ROWS.items()
        for name, _, text in (
            row.partition(":") for row in text.strip().replace("\n ", " ").split("\n")
        )
        for meaning, _, remedy in (" ".join(text.split()).partition(" | "),)
    }


_RELEASE = """
rejected: the release cannot be used | publish another release
malformed: bytes are not what their format requires | publish again
unhealthy: its health check or its units failed during the trial
  | see the reason; publish a release that works
restart_failed: its units did not start | `systemctl status UNIT`; read the unit's log
self_test_failed: the owner's self-test refused it | publish a release that works
interrupted_in_probation: updaterd died during the trial
  | nothing: tried again, later each time
rebooted_in_probation: the machine restarted during the trial
  | nothing: tried again, later each time
self_update_failed: the guard went back from a release of updaterd
  | publish a release of updaterd that works
rolled_back_by_hand: somebody ran `updaterd rollback`
  | `updaterd update --retry`, or wait for a newer release
no_usable_bundle: none of its bundles can be used here
  | `release verify --deep`; publish again; update updaterd
bad_bundle: a file is not a bundle | publish again
bad_output: a bundle does not make the files that were signed | publish again
wrong_tree: a bundle does not make the tree that was signed | publish again
worker_crashed: the process that opens bundles crashed | publish again; report it
cpu_limit: a bundle takes too long to apply | publish again
memory_limit: a bundle needs more memory than it may have | publish again
too_large: there are more bytes than the format allows | publish less at once
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

_MACHINE = """
error: an error without a code of its own | do what the text says
transient: it may work later | nothing: tried again
broken: a person must look at it | do what the text says
config: the configuration cannot be used | correct the line that is named
busy: another process is at work on it | wait for it
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
in_the_way: something foreign is where a release must be replaced, such as a mounted
  file system | unmount it, or move it away
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
mode_not_allowed: a release asks for a right that the owner does not allow: setuid,
  setgid, sticky, or writable by others
  | set `products.NAME.special_modes`, if you want it
mode_refused: the system forbids a mode that the owner allows
  | write a drop-in for the unit with `RestrictSUIDSGID=no`
label_in_use: the active release is not what was signed under its name: it is damaged,
  or its publisher gave the name to another tree
  | `updaterd verify PRODUCT --repair`; publish the other tree as a version of its own
staged_tree_gone: a staged release vanished from disk before it was active
  | nothing: built again
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
worker_killed: the worker was killed, perhaps by a person | `journalctl -k`
no_such_command: a configured command does not exist, or cannot be run
  | correct it, or its rights
worker_died: the worker ended early | read the worker's lines in the journal
no_answer: the process that opens bundles ended without an answer
  | look at the disk and `dmesg`; it is tried again
worker_silent: the process that opens bundles made no progress | look at the disk
worker_left_others: the process that opens bundles left processes that cannot be ended
  | restart the machine; report it, with the bundle
cage_open: the process that opens bundles is confined less than it could be
  | use a kernel of 5.13 or newer with Landlock enabled, on x86-64 or aarch64
cage_not_built: the process that opens bundles could not start, or not be confined
  | see the text; `updaterd config check`
bad_old_files: an installed file was changed, or cannot be read
  | `updaterd verify PRODUCT --repair`
bad_root: the first root cannot be used | install `trust.root` again
no_such_user: the daemon's user does not exist
  | install the package, or make it with systemd-sysusers
not_granted: the rights could not be written or applied | run it as root; see the text
tree_gone: the journal has a release installed, and the disk has none
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

_NETWORK = """
dns: a name cannot be resolved | check the resolver, `/etc/resolv.conf`
refused: nobody listens there | check the server and firewalls
unreachable: there is no route, or no answer | check routes, firewalls and the server
connect_timeout: nobody took the connection in time | check routes and firewalls
tls: the certificate is not trusted, has expired, or has another name
  | check `ca_file`, the server's certificate and the clock
proxy: the proxy refuses, or its address cannot be used
  | check `proxy` and the proxy's rules
reset: the connection was reset | check the server and what is in between
cut: a stream was cut off | check the server and what is in between
closed: the server closed the connection; one now and then is its rotation
  | nothing, unless it lasts
half_open: the other end vanished without closing the connection
  | check the network in between
idle_timeout: no byte came, not even a heartbeat
  | look for a proxy that buffers; check the server
header_timeout: no answer came to the request | check the server
timeout: it took too long | check the server and the network
too_slow: bytes come too slowly | check the server and the network
http_NNN: the server's answer; 401 and 403 mean the token, 404 the address; 429 and
  503 pass | check `headers_file` and the address
content_type: what answers is not a feed | check the address; look for a captive portal
content_encoding: it came compressed although that was ruled out
  | serve files as they are
protocol: what answers does not speak HTTP
  | check the address; look for a captive portal
redirect: a redirect makes no sense | check the server
redirects: redirects lead in circles | check the server
cross_origin_redirect: a redirect leads to another host | serve files where they are
stream_limit: a line or an event is larger than any event may be | check the server
endless_data: more bytes came than were announced | check the server
short_answer: fewer bytes came than were asked for | check the server
bad_range: a server sends another range than was asked for | check the server
hash_mismatch: a server has other bytes than were signed | `release verify --deep`
network: another fault of the network; the text names it | do what the text says
feed: the feed cannot be used | do what the text says
"""

_PUBLISHER = """
metadata_expired: signed metadata has expired, or the clock is wrong
  | `release refresh`; check the clock
metadata_forged: metadata is signed by keys that are not trusted, or by too few
  | look for tampering, or for keys that changed without a root
metadata_rollback: metadata is older than what this machine accepted before
  | look for a stale mirror, or a replay
metadata_mixed: files do not belong together
  | nothing: a cache is stale, and that passes
metadata_malformed: what came is not metadata
  | look for a proxy's page, or a broken upload
metadata_missing: a file of the repository does not exist | complete the upload
stale_mirror: the timestamp is older than before; the newer one is kept
  | refresh the mirror
no_such_channel: nobody signed that channel | check the names in the configuration
no_such_release: nobody signed that release
  | look for a missing platform, or a pointer that came too early
no_such_target: nobody signed that file | check the repository
wrong_target: it is validly signed, for another product, channel or platform
  | check your own signing; a key may be stolen
below_floor: the repository asks for a release below the signed floor
  | check what was signed
floor_over_offer: the channel's floor forbids a release that the channel offers
  | lower the floor; a key may be stolen
"""

_NOBODY = """
current: what the channel offers is installed | nothing
installed: the release is installed | nothing
install: a first install is under way | nothing
upgrade: a newer release is under way | nothing
step_back: a step back that the publisher signed is under way | nothing
nothing_offered: the channel is empty | nothing
paused: the publisher paused the channel | nothing
not_understood: it was made for a newer updaterd and is passed over; what is installed
  stays | update updaterd
not_for_platform: no offer was made for this machine's platform
  | nothing; the publisher may add it
not_in_rollout: the rollout does not reach this machine yet | nothing
ahead_of_rollout: what is installed is newer than what the rollout gives to this
  machine | nothing
splay: this machine's splay within the rollout's spread is not over | nothing
held: a hold stops it | `updaterd unhold`, or wait
outside_window: it waits for the maintenance window | nothing
blocked: the release failed or was rolled back here
  | wait for a newer release, or `updaterd update --retry`
system_stopping: the machine, or updaterd, was told to stop during a trial
  | nothing: the trial is repeated at the next start
superseded: another release came before this one was done | nothing
resumed: a deployment that was cut short went on | nothing
on_disk: its tree was on disk already | nothing
adopted: the tree was made of files that were on disk already | nothing
adopting: an application that others installed was taken over | nothing
found_on_disk: the journal took over what is on disk | nothing
current_restored: `current` was gone and is back | nothing
nothing_on_disk: no release is left on disk; a person had the product installed anew
  | nothing
left_for_package: somebody removed `current` of updaterd itself: the packaged release
  runs | `updaterd unhold updaterd`
http_204: the feed told this machine to go away | nothing: asked again at the next poll
"""

_SERVER = """
address_file: the file for the server's address cannot be written
  | correct `--address-file`
certificate: the certificate or its key cannot be used | correct the files
fast_sink: the fast sink cannot be used here | another `--sink`
listen: the server cannot listen at this address
  | choose another port, or see who has it
log_unreachable: the event log does not answer | check Redis, or the disk
log_unusable: the event log cannot be used | see the file that is named
log_url: the address of the log is not valid | correct `--log`
extra_missing: the server's libraries are not installed | install `updaterd[server]`
tokens_unreadable: the tokens cannot be read | correct the file's rights
tokens_unwritable: the tokens cannot be written | correct the folder's rights
downloads_full: as many files are being read as the feed server can open, or this
  address reads as many as are free | later
unavailable: the feed server cannot answer now: files or connections are at their
  limit, or its disk refuses | read its log
too_many_tokens: there are too many tokens | revoke some
bad_scope: a scope is not valid | use `publish:PRODUCT/CHANNEL`, `operate` or `read`
no_such_token: there is no such token | `updaterd token list`
token_required: a token is needed | send one
scope_missing: the token may not do that | use another token
idempotency_key_required: an announcement came without its key | send `Idempotency-Key`
idempotency_key_reused: the key came with another announcement before | use a new key
metadata_older: the announcement's metadata is older than what was announced
  | announce what is newest
too_many_announcements: announcements come too fast | slow down
body_timeout: the body did not come in time | send it at once
head_too_large: the request's head is too large | send less
method_not_allowed: the method is not allowed | use GET or POST
not_ready: the server starts or stops | ask again
full: the server has as many streams as it may | ask again later; add servers
too_many_at_once: too many streams open at once | ask again later
operate_scope_required: metrics need a token with the scope `operate`
  | use another token
too_many_of_token: there are too many streams with one token
  | open fewer, or use another token
too_many_of_address: there are too many streams from one address | open fewer
"""

_COMMAND = """
announcement_refused: the feed refused the announcement | do what the feed says
bundle_not_listed: the manifest does not list that bundle | name the right manifest
bad_change: a change of keys cannot be read | export it again
bad_file_type: a file is neither file, folder nor link | leave it out
bad_key: a key file cannot be used | use another file, or its passphrase
bad_key_uri: a key's address cannot be used | correct it
not_proven: a bundle, when applied, does not make the release | report it
bad_min_updater: `--min-updater` is not a version | correct it
bad_workspace: the repository's settings cannot be used | correct `release.toml`
change_outdated: the change was made for an older root | export it again
change_pending: a change of keys waits | import or cancel it
concurrent_publish: another publication was faster | run it again
credential: a credential cannot be used | correct it
delta_worker: a process that makes deltas died | free memory; run it again
disk: the disk refused | repair it, then run the same command
empty_channel: the channel has no release | push one
empty_tree: there is nothing in the folder | name the right folder
exists: it exists already | choose another name
floor_above: the floor would be above the release | choose a lower floor
key_unreachable: a key does not answer | check the token, the KMS, the plug
keyring: the names of the keys cannot be read | see the file that is named
missing_keys: keys are not here | bring them, or rotate lost ones
no_change: no change of keys waits | nothing
no_repository: there is no repository | `release init`
no_say: the key's signature would not count | use another key
no_such_key: there is no such key | `release keys list`
no_such_role: there is no such role | `release status`
nothing_beneath: there is no other offer for the other machines
  | push a release that works; pause, or yank
no_workspace: the folder is not a workspace | `release init`; `--repo`
not_a_feed: what answers is not a feed | check `--feed`
not_carried: the tree has what no release carries | leave it out, or `--drop`
not_confirmed: it was not confirmed | answer yes, or use `--yes`
not_metadata: the file is not metadata | use the right file
not_compared: what is published there is another repository
  | correct `served_at` in `release.toml`
not_newest: the channel offers a later release | `release publish` to go back
other_file: the file is another one than the change that waits | export it again
partial_step_back: only a part of the machines would step back
  | offer the older release to all
passphrase: the passphrase is missing or wrong | give the right one
pin: a token's PIN is missing | set `UPDATERD_PIN`, or `--pin-file`
platform_missing: the release lacks a platform that the channel has
  | `--tree` for each; `--without` to leave those machines with what they have
release_exists: that version is, or was, published with other contents
  | choose a new version
repository_behind: what is published is newer than this workspace
  | bring the newest copy of `public/`; `release recover`
repository_unreadable: the repository cannot be read | see the file that is named
seq_exhausted: no seq is left above that one | rotate the release key, yank that release
seq_mismatch: the version has another seq | leave `--seq` out
seq_not_above: the seq is not above the last one | choose a higher one
source_paused: the channel to promote from is paused | resume it; `release publish`
signing_failed: a key did not sign | check the token, the KMS
taken_back: the channel offered it before and went back from it
  | `release publish` to offer it again
token: the token for announcements cannot be used | check `--token-file`
token_refused: the feed refused the token | use another token
too_few_keys: fewer keys than signatures are asked for | add keys first
too_many_rollouts: more rollouts would be under way than a channel can hold | finish one
tree_changed: the folder changed while it was read | run it again
unknown_matcher: the matcher is not known | see `--help`
unreadable: a file cannot be read | correct its rights
unused_key: no role uses the key | nothing
useless_patch: a patch does not make the file | leave it out
weak_passphrase: the passphrase for a new key is too short | choose a longer one
workspace_exists: there is a repository already | choose another folder
"""

_ROWS = {
    Kind.RELEASE: _RELEASE,
    Kind.MACHINE: _MACHINE,
    Kind.NETWORK: _NETWORK,
    Kind.PUBLISHER: _PUBLISHER,
    Kind.NOBODY: _NOBODY,
    Kind.SERVER: _SERVER,
    Kind.COMMAND: _COMMAND,
}
