# SPDX-License-Identifier: Apache-2.0
"""Trees and folders on disk: whose they are, where they end, how they are deleted."""
