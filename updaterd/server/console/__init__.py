# SPDX-License-Identifier: Apache-2.0
"""The web console: what machines reported, as pages that only show (decision 0048)."""
