# SPDX-License-Identifier: Apache-2.0
"""The daemon: one supervisor that stays small, workers that come and go."""
