# SPDX-License-Identifier: Apache-2.0
"""The signed files of a repository, and what they say of each product."""
