# SPDX-License-Identifier: Apache-2.0
"""Bytes on their way into a bundle: read, encoded, packed."""
