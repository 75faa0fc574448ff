# SPDX-License-Identifier: Apache-2.0
"""What machines reported: kept, counted, and read. Evidence, never authority."""
