# SPDX-License-Identifier: Apache-2.0
"""What release commands are put together from."""
