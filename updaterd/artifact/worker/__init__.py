# SPDX-License-Identifier: Apache-2.0
"""The bundle opener: its parent, its cage, and what the two say."""
