# SPDX-License-Identifier: Apache-2.0
"""Re-aim references of programs: their images, and what a delta says of them."""
