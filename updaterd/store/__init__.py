# SPDX-License-Identifier: Apache-2.0
"""What must survive: one SQLite file, shared by the daemon and its workers."""
