# SPDX-License-Identifier: Apache-2.0
"""Commands that steer a channel: what it offers, to how many, and whether at all."""
