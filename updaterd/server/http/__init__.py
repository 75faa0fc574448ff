# SPDX-License-Identifier: Apache-2.0
"""HTTP: routes, announcements, files and probes."""
