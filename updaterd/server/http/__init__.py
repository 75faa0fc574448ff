# SPDX-License-Identifier: Apache-2.0
"""HTTP: connections and their limits, routes, announcements, files and probes."""
