# SPDX-License-Identifier: Apache-2.0
"""What commands that watch rollouts are put together from."""
