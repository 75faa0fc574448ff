# SPDX-License-Identifier: Apache-2.0
"""The daemon's ear: a Server-Sent-Events subscription over httpx."""
