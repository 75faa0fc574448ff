# SPDX-License-Identifier: Apache-2.0
"""The event log: its contract, the logs that fulfil it, and their registry by URL."""
