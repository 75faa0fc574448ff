# SPDX-License-Identifier: Apache-2.0
"""A release built, signed and published at three places: handed on as a file."""
