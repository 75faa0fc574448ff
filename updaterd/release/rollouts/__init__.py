# SPDX-License-Identifier: Apache-2.0
"""Guarded rollouts, beside the online key: what is done, and who is told of it."""
