# SPDX-License-Identifier: Apache-2.0
"""Machines of closed fleets: one-time codes, and the tokens that they became."""
