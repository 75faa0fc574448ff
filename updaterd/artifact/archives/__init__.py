# SPDX-License-Identifier: Apache-2.0
"""Deflate streams inside files: inflated before a delta is applied, deflated after."""
