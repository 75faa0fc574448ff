# SPDX-License-Identifier: Apache-2.0
"""Keeping a repository fit: expiry, verification, garbage, recovery."""
