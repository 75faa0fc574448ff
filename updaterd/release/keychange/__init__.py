# SPDX-License-Identifier: Apache-2.0
"""Who may sign what, and how that is changed."""
