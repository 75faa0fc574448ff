# SPDX-License-Identifier: Apache-2.0
"""Keys that sign: where each is kept, and how it is reached."""
