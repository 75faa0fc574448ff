# SPDX-License-Identifier: Apache-2.0
"""Bundles: fetched, verified, unpacked and applied."""
