# SPDX-License-Identifier: Apache-2.0
"""Apply a delta's operations: byte loops, compiled or in Python, in bounded memory."""
