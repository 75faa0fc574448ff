# SPDX-License-Identifier: Apache-2.0
"""Codes of the repository and what its keys signed: the publisher acts."""

ROWS = """
metadata_expired: signed metadata has expired, or the clock is wrong
  | `release refresh`; check the clock
metadata_forged: metadata is signed by keys that are not trusted, or by too few
  | look for tampering, or for keys that changed without a root
metadata_rollback: metadata is older than what this machine accepted before
  | look for a stale mirror, or a replay
metadata_mixed: files do not belong together
  | nothing: a cache is stale, and that passes
metadata_malformed: the server sent something that is not metadata
  | look for a proxy's page, or a broken upload
metadata_missing: a file of the repository does not exist | complete the upload
stale_mirror: the repository serves an older timestamp than before; the newer one is
  kept
  | refresh the mirror
no_such_channel: the repository has no such channel
  | check the names in the configuration
no_such_release: no key of the repository signed that release
  | look for a missing platform, or a pointer that came too early
no_such_target: no key of the repository signed that file | check the repository
wrong_target: a signed document is for another product, channel or platform
  | check your own signing; a key may be stolen
no_way: the release cannot be installed over what is here, and none leads there
  | offer a release that older machines can install, and that leads on
below_floor: the repository asks for a release below the signed floor
  | check what was signed
floor_over_offer: the channel's floor forbids a release that the channel offers
  | lower the floor; a key may be stolen
"""
