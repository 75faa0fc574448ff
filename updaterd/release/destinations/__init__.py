# SPDX-License-Identifier: Apache-2.0
"""Where a repository is copied to: a bucket, a directory; each kind is a module."""
