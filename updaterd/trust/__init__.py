# SPDX-License-Identifier: Apache-2.0
"""Signed metadata: python-tuf over httpx, and nothing else that is believed."""
