# SPDX-License-Identifier: Apache-2.0
"""What a person is told on his desktop, by a process of his own session."""
