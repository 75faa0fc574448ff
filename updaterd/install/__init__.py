# SPDX-License-Identifier: Apache-2.0
"""The effects on the machine: stage, activate, restart, health, prune."""
