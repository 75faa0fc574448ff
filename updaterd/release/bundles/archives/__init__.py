# SPDX-License-Identifier: Apache-2.0
"""Find deflate streams in files, and how each was made."""
