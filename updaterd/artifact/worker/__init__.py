# SPDX-License-Identifier: Apache-2.0
"""The process that opens bundles: its parent, its cage, and what the two say."""
