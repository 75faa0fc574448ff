# SPDX-License-Identifier: Apache-2.0
"""Kits: what brings a publisher's application, and updaterd for it, to a machine."""
