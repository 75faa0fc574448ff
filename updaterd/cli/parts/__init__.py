# SPDX-License-Identifier: Apache-2.0
"""What the commands of a machine are put together from."""
