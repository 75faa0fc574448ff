# SPDX-License-Identifier: Apache-2.0
"""Programs, as a delta is made of them: what they are, and how two are matched."""
