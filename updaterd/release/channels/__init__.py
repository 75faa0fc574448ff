# SPDX-License-Identifier: Apache-2.0
"""What a channel offers, and to whom."""
