# SPDX-License-Identifier: Apache-2.0
"""Bundles: full ones, deltas between releases, and the proof that they apply."""
