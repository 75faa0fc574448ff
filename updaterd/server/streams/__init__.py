# SPDX-License-Identifier: Apache-2.0
"""Streams of events, from the log to readers: admission, catch-up, delivery, end."""
